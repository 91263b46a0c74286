"""How the web page is served: TLS, limits, beside a service elsewhere, and without Redis."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import httpx
import pytest

from advisor.local.server import LocalServer
from advisor.server.listening import ListenError
from advisor.server.settings import Settings
from advisor.server.web import bound_listener, check_packages
from fslr import AdvisorClient
from tests.certificates import Authority
from tests.fork_server import start_service
from tests.redis_servers import RedisServer, free_port
from tests.waiting import eventually
from tests.web.service import Run, WebService, register

_BASE = "/projects/default/runs/night"


def _mutual_tls(folder: Path) -> tuple[tuple[str, ...], ssl.SSLContext]:
    """Return options of a page that requires certificates, and a context that has one."""
    authority = Authority(folder)
    cert, key = authority.issue("server")
    ca = str(authority.ca())
    own = authority.client()
    assert own.cert is not None
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(own.cert, own.key)
    return ("--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", ca), context


def _check_refusal(url: str, folder: Path) -> None:
    """Check that a page does not answer a browser without a certificate."""
    stranger = ssl.create_default_context(cafile=folder / "ca.pem")
    stranger.maximum_version = ssl.TLSVersion.TLSv1_2  # whose handshakes fail at once
    with pytest.raises(httpx.TransportError, match=r"(?i)alert|reset|eof"):
        httpx.get(url, verify=stranger)


def test_with_tls_the_cookie_is_secure_and_requests_are_limited(tmp_path: Path) -> None:
    files, context = _mutual_tls(tmp_path)
    with WebService(None, *files, "--http-max-requests-per-s", "4") as service:
        assert service.url.startswith("https://")
        _check_refusal(service.url, tmp_path)
        with httpx.Client(base_url=service.url, verify=context) as client:
            signed_in = client.post("/sign-in", data={"token": "anything"})  # not needed here
            cookie = signed_in.headers["set-cookie"]
            assert cookie.startswith("__Host-advisor-token=")
            assert "Secure" in cookie
            assert "max-age" in signed_in.headers["strict-transport-security"]
            answers = [client.get("/projects/default") for _ in range(40)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert refused, "no request was refused"
        assert int(refused[0].headers["retry-after"]) >= 1
        assert "Too many requests at once" in refused[0].text


def test_a_page_beside_a_service_says_so_while_redis_is_down(tmp_path: Path) -> None:
    port = free_port()
    with (
        RedisServer(tmp_path / "redis") as redis,
        LocalServer(None, "--redis-url", redis.url, "--redis-timeout-s", "1") as service,
        TemporaryFile() as log,
    ):
        with AdvisorClient(service.address) as client:
            register(client)
            run = Run(client, "night")
            run.measure(3)
            run.close()
        files, context = _mutual_tls(tmp_path)
        arguments = ["web", "--address", service.address, "--http", str(port), "--until-eof"]
        page = start_service([*arguments, *files], log)
        url = f"https://127.0.0.1:{port}"
        try:
            _check_outage(url, context, service, redis)
            _check_refusal(url, tmp_path)
        finally:
            page.end()


def _check_outage(
    url: str, context: ssl.SSLContext, service: LocalServer, redis: RedisServer
) -> None:
    with httpx.Client(base_url=url, verify=context, timeout=20) as client:

        def answers() -> bool:
            try:
                return client.get("/healthz").status_code == 200
            except httpx.ConnectError:
                return False

        eventually(answers, within_s=30)
        curves = f"{_BASE}/curves.json"
        eventually(lambda: client.get(curves).json().get("measurements") == 3, within_s=30)
        after = client.get(curves).json()["last_id"]
        with client.stream("GET", f"{_BASE}/events?after={after}") as live:
            lines = live.iter_lines()
            next(lines)
            redis.kill()
            overview = eventually(
                lambda: _with_words(client, "Runs and profiles cannot be read"), within_s=30
            )
            assert "Trainings go on: they keep their last multipliers" in overview
            assert (
                overview.count("Cannot be read right now.") == overview.count(" data-unread") == 3
            )
            assert '<span class="dot bad"></span>does not answer: ' in overview
            assert _BASE not in overview
            unread = client.get("/projects/default/profiles/nothing")
            assert unread.status_code == 503
            assert "Trainings go on: they keep their last multipliers" in unread.text
            # What was read stays: the page of the run shows it, and says what is wrong.
            eventually(
                lambda: "Nothing new can be read right now" in client.get(_BASE).text, within_s=30
            )
            assert client.get(curves).json()["measurements"] == 3
            problems = (line for line in lines if line.startswith('data: {"problem":'))
            assert "the store does not answer" in next(problems)
            redis.start()
            eventually(lambda: _with_words(client, _BASE))
            # Without a measurement, an open page learns that the service answers again.
            assert next(problems) == 'data: {"problem":""}'
            with AdvisorClient(service.address) as trainer:
                run = Run(trainer, "night")
                run.measurements = 3
                run.measure()
                run.close()
            data = next(line for line in lines if line.startswith('data: {"step":'))
            assert json.loads(data.removeprefix("data: "))["step"] == run.last_step


def _with_words(client: httpx.Client, words: str) -> str:
    """Return the overview if it has some words; else nothing."""
    page = client.get("/projects/default")
    assert page.status_code == 200
    return page.text if words in page.text else ""


def test_a_taken_port_is_an_error_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given: dict[str, Any] = {"http": port}
        with pytest.raises(ListenError, match=f"cannot serve the web page on .*:{port}: .* --http"):
            bound_listener(Settings(**given))


def test_missing_packages_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ListenError, match=r"needs starlette, .*pip install 'fslr-advisor\[web\]'"):
        check_packages()


def test_the_page_alone_takes_no_tokens_over_an_open_network() -> None:
    with TemporaryFile() as log:
        page = start_service(["web", "--host", "0.0.0.0", "--http", "0"], log)
        try:
            assert page.wait(60) == 1
        finally:
            page.end()
        log.seek(0)
        assert b"the page is not encrypted; give --tls-cert" in log.read()
