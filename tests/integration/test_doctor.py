"""``advisor doctor`` against real deployments, good and bad."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from advisor.local.server import LocalServer
from fslr import CertificateFiles
from tests.certificates import Authority
from tests.commands import Cli
from tests.operator_tokens import Tokens
from tests.redis_servers import RedisServer, free_port
from tests.waiting import eventually

PROJECT = "attacker"


def examine(address: str, *, tls: CertificateFiles | None = None, token: str = "") -> Findings:
    """Return the findings of the command, and check its exit status against them."""
    env = {"FSLR_TOKEN": token}
    if tls is not None:
        env["FSLR_TLS_CA"] = str(tls.ca)
        if tls.cert is not None:
            env |= {"FSLR_TLS_CERT": str(tls.cert), "FSLR_TLS_KEY": str(tls.key)}
    cli = Cli(address, PROJECT)
    readable = cli.run("doctor", ok=None, env=env)
    result = cli.run("doctor", "--json", ok=None, env=env)
    found = Findings(result.stdout)
    assert readable.exit_code == result.exit_code == int(found.worst == "problem")
    strict = cli.run("doctor", "--strict", ok=None, env=env)
    assert strict.exit_code == int(found.worst in {"problem", "warning"})
    for finding in found.findings:
        assert finding["check"] in readable.stdout
    return found


class Findings:
    """The findings of one examination."""

    def __init__(self, text: str) -> None:
        data = json.loads(text)
        self.worst: str = data["worst"]
        self.findings: list[dict[str, str]] = data["findings"]

    def at(self, level: str) -> str:
        """Return the findings at a level, with their remedies, as text."""
        return "\n".join(
            f"{f['check']}: {f['found']} -> {f['remedy']}"
            for f in self.findings
            if f["level"] == level
        )


@contextmanager
def secured(cert: Path, key: Path, *arguments: str) -> Iterator[LocalServer]:
    with LocalServer(None, "--tls-cert", str(cert), "--tls-key", str(key), *arguments) as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_service_with_default_settings_has_no_problems() -> None:
    with LocalServer() as service:
        found = examine(service.address)
        assert found.worst == "ok"
        assert {f["check"] for f in found.findings} >= {
            *("address", "service", "tls", "token", "redis", "redis persistence"),
            *("redis memory", "clock", "version"),
        }


def test_a_port_where_nothing_listens_is_a_problem() -> None:
    found = examine(f"127.0.0.1:{free_port()}")
    assert "does not accept connections (Connection refused) -> start the service" in found.at(
        "problem"
    )
    assert len(found.findings) == 1


def test_a_server_that_is_not_an_advisor_is_a_problem() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        found = examine(f"127.0.0.1:{other.server_address[1]}")
        other.shutdown()
    assert "is not an advisor" in found.at("problem")


def test_a_wide_open_service_is_a_problem() -> None:
    with LocalServer(None, "--host", "0.0.0.0", "--allow-insecure") as service:
        port = service.address.rsplit(":", 1)[1]
        problems = examine(f"127.0.0.1:{port}").at("problem")
    assert "calls cross a network in plain text" in problems
    assert "anyone who reaches the service can change profiles" in problems


def test_tls_on_one_side_only_is_a_problem(authority: Authority) -> None:
    with secured(*authority.issue("server")) as service:
        assert "uses TLS, but this client is not configured for it" in examine(service.address).at(
            "problem"
        )
    with LocalServer() as service:
        found = examine(service.address, tls=CertificateFiles(authority.ca()))
    assert "does not use TLS" in found.at("problem")


def test_a_certificate_of_an_unknown_authority_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with secured(*authority.issue("server")) as service:
        found = examine(service.address, tls=CertificateFiles(other.ca()))
    assert "-> set FSLR_TLS_CA to the certificate of the authority" in found.at("problem")


def test_a_certificate_for_a_different_name_is_refused(authority: Authority) -> None:
    with secured(*authority.issue("server", "advisor.example")) as service:
        found = examine(service.address, tls=CertificateFiles(authority.ca()))
    assert "issue one for 127.0.0.1" in found.at("problem")


@pytest.mark.parametrize(
    ("expires_in", "level", "words"),
    [
        (timedelta(days=200), "ok", "expires"),
        (timedelta(days=3), "warning", "renew it"),
        (timedelta(days=-1), "problem", "certificate has expired -> renew it"),
    ],
)
def test_a_certificate_that_expires_soon_is_a_warning(
    authority: Authority, expires_in: timedelta, level: str, words: str
) -> None:
    cert, key = authority.issue("server", ends=datetime.now(UTC) + expires_in)
    with secured(cert, key) as service:
        found = examine(service.address, tls=CertificateFiles(authority.ca()))
    assert words in found.at(level)
    assert found.worst == level


def test_a_missing_client_certificate_is_a_problem(authority: Authority) -> None:
    ca = authority.ca()
    with secured(*authority.issue("server"), "--tls-client-ca", str(ca)) as service:
        assert examine(service.address, tls=authority.client()).worst == "ok"
        without_certificate = examine(service.address, tls=CertificateFiles(ca))
    assert without_certificate.worst == "problem"
    assert "FSLR_TLS_CERT" in without_certificate.at("problem")


def test_missing_valid_foreign_and_invalid_tokens_are_distinguished(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        tokens = Tokens(server.url, PROJECT)
        with LocalServer(None, "--redis-url", server.url, "--authenticate") as service:
            without = examine(service.address)
            good = examine(service.address, token=tokens.create("viewer")["token"])
            foreign = examine(service.address, token=tokens.create("viewer", "other")["token"])
            made_up = examine(service.address, token="fslr_attacker_0123456789ab_" + "x" * 43)
    assert "advisor token create" in without.at("problem")
    assert "a-viewer has the role viewer in projects/attacker" in good.at("ok")
    assert "a call without a token is refused" in good.at("ok")
    assert "calls for projects/attacker are refused" in foreign.at("problem")
    assert "token: " in made_up.at("problem")
    printed = str([without.findings, good.findings, foreign.findings, made_up.findings])
    assert "x" * 43 not in printed


def test_a_redis_that_can_lose_data_is_a_problem(tmp_path: Path) -> None:
    careless = ("--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    with (
        RedisServer(tmp_path, *careless) as server,
        LocalServer(None, "--redis-url", server.url) as service,
    ):
        problems = examine(service.address).at("problem")
        with server.client() as admin:
            admin.config_set("appendonly", "yes")
            admin.config_set("appendfsync", "everysec")
            admin.config_set("maxmemory-policy", "noeviction")
        everysec = examine(service.address)
        with server.client() as admin:
            admin.config_set("appendfsync", "always")
        good = examine(service.address)
    assert "redis persistence: Redis keeps no append-only file" in problems
    assert "redis memory: Redis evicts profiles and tokens" in problems
    assert everysec.worst == "warning"
    assert "flushed once per second" in everysec.at("warning")
    assert good.worst == "ok"


def test_checks_that_redis_does_not_permit_are_reported_as_unknown(
    tmp_path: Path,
) -> None:
    with (
        RedisServer(tmp_path) as server,
        server.client() as admin,
        LocalServer(None, "--redis-url", server.url) as service,
    ):
        admin.execute_command("ACL SETUSER", "default", "-info", "-time", "-config|get")
        found = examine(service.address)
        admin.execute_command("ACL SETUSER", "default", "+time")
        with_time = examine(service.address)
    assert found.worst == "unknown"
    for words in ("version unknown", "whether it keeps", "how many replicas", "+time"):
        assert words in found.at("unknown")
    assert "Redis's clock is within 1 s" in with_time.at("ok")


def test_an_unavailable_redis_is_a_problem(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        LocalServer(None, "--redis-url", server.url) as service,
    ):
        server.kill()
        eventually(lambda: "not ready" in examine(service.address).at("warning"))
        assert "redis: the service cannot use Redis" in examine(service.address).at("problem")
