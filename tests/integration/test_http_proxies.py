"""Calls of clients and commands on a machine where an HTTP proxy is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient, CertificateFiles, DeadlineExceededError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2
from tests.certificates import Authority
from tests.commands import Cli
from tests.http_proxy import HttpProxy
from tests.redis_servers import free_port

TOKEN = "fslr_default_0123456789ab_" + "S" * 43
ELSEWHERE = "advisor.invalid:50051"  # the proxy connects it to the service


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def port_of(server: LocalServer) -> int:
    return int(server.address.rpartition(":")[2])


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy", "HTTP_PROXY"])
def test_no_call_or_token_for_this_machine_reaches_a_proxy(
    variable: str, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpProxy(port_of(server)) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        for address in (server.address, f"localhost:{port_of(server)}"):
            with AdvisorClient(address, token=TOKEN) as client:
                assert client.status().loopback
        cli = Cli(server.address, "default")
        assert "SERVING" in cli.run("health", "--ready").stdout
        assert "proxy" not in cli.run("doctor").stdout
        assert cli.run("profile", "list").exit_code == 0
    assert not proxy.requests


def test_a_proxy_that_is_down_does_not_matter_on_this_machine(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with AdvisorClient(server.address) as client:
        assert client.status().version
    assert Cli(server.address, "default").run("health").exit_code == 0


def test_calls_to_other_machines_go_through_the_proxy(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpProxy(port_of(server)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//user:p%40ss@"))
        with AdvisorClient(ELSEWHERE) as client:
            assert client.status().version
        report = Cli(ELSEWHERE, "default").run("doctor", "--strict", ok=False).stdout
    assert set(proxy.requests) == {f"CONNECT {ELSEWHERE} HTTP/1.1"}
    credentials = [line for head in proxy.headers for line in head.split("\r\n") if "Basic" in line]
    assert {line.split()[-1] for line in credentials} == {"dXNlcjpwQHNz"}  # doctor's and gRPC's
    assert len(credentials) == len(proxy.headers)
    assert "which https_proxy names; it can read measurements and tokens" in report
    assert f"the proxy connects to {ELSEWHERE}" in report
    assert "p@ss" not in report
    assert "p%40ss" not in report


def test_tls_is_checked_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("server", "advisor.invalid")
    files = CertificateFiles(authority.ca())
    with (
        LocalServer(None, "--tls-cert", str(cert), "--tls-key", str(key)) as service,
        HttpProxy(port_of(service)) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url)
        with AdvisorClient(ELSEWHERE, tls=files, token=TOKEN) as client:
            assert client.status().encrypted
        report = Cli(ELSEWHERE, "default").run(
            "doctor", ok=None, env={"FSLR_TLS_CA": str(files.ca)}
        )
    assert "advisor.invalid uses TLSv1" in report.stdout
    assert "can read" not in report.stdout
    assert TOKEN.encode() not in proxy.sent


def test_a_refusing_proxy_is_named_with_its_variable(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = r"calls go through the proxy 127.0.0.1:\d+, which http_proxy names; to connect directly"
    with HttpProxy(port_of(server), status="403 Forbidden") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with AdvisorClient(ELSEWHERE) as client:
            with pytest.raises(UnavailableError, match=named):
                client.status()
            session = client.open_run(advisor_service_pb2.RunOpening())
            with pytest.raises(UnavailableError, match=named):
                session.recommend(advisor_service_pb2.Measurement(step=1))
            session.close()
        cli = Cli(ELSEWHERE, "default")
        assert "add advisor.invalid to no_proxy" in cli.run("health", ok=False).stderr
        report = cli.run("doctor", ok=False).stdout
    assert "the proxy answers 'HTTP/1.1 403 Forbidden'" in report
    assert "allow it at the proxy; to connect directly, add advisor.invalid to no_proxy" in report


def test_a_proxy_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpProxy(target_port=free_port(), status="100 Continue") as proxy:
        monkeypatch.setenv("grpc_proxy", proxy.url)
        with (
            AdvisorClient(ELSEWHERE, deadline_s=0.001) as client,
            pytest.raises(DeadlineExceededError, match="which grpc_proxy names"),
        ):
            client.status()
