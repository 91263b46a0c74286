"""Who may stay on a page: certificates of browsers, revoked tokens, number of live pages."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path

import httpx
import pytest

from advisor.store.redis.embedded import running_url
from advisor.web import live, run_feed, serving
from advisor.web.app import WebLimits, create_app
from advisor.web.backend import Backend
from fslr import AdvisorClient, CertificateFiles
from tests.certificates import Authority
from tests.operator_tokens import Tokens
from tests.waiting import eventually
from tests.web.service import Run, WebService, register

_BASE = "/projects/default/runs/night"


def test_live_pages_of_one_viewer_are_limited_and_end_with_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--authenticate", "--token-cache-s", "0.1", "--http-max-live-pages", "2")
    with WebService(tmp_path, *arguments) as service:
        url = running_url(tmp_path)
        assert url is not None
        tokens = Tokens(url, "default")
        created = tokens.create("operator")
        token = created["token"]
        with AdvisorClient(service.address, token=token) as client:
            register(client)
            run = Run(client, "night")
            run.measure(2)
            run.close()
        cookies = {"advisor-token": token}
        with httpx.Client(base_url=service.url, timeout=20, cookies=cookies) as browser:
            eventually(lambda: browser.get(f"{_BASE}/curves.json").status_code == 200)
            with browser.stream("GET", f"{_BASE}/events") as stream:
                lines = stream.iter_lines()  # the page is open while they are read
                assert next(lines).startswith("retry: ")
                with browser.stream("GET", f"{_BASE}/events") as further:
                    assert further.status_code == 429
                    assert int(further.headers["retry-after"]) >= 1
                    words = json.loads(further.read())["error"]
        assert "2 is the maximum (http_max_live_pages), and half of it for one viewer" in words
        monkeypatch.setattr(live, "_CHECK_S", 0.0)
        monkeypatch.setattr(run_feed, "_QUIET_S", 0.02)
        monkeypatch.setattr(run_feed, "_BATCH_S", 0.02)
        monkeypatch.setattr(Backend.status, "__kwdefaults__", {"max_age_s": 0.0})
        asyncio.run(asyncio.wait_for(_revoke(service.address, tokens, created), 30))


async def _revoke(address: str, tokens: Tokens, created: dict[str, str]) -> None:
    """Revoke the token of an open page, which then ends; this page checks it all the time."""
    app = create_app(Backend(address), WebLimits())
    page, cookies = httpx.ASGITransport(app), {"advisor-token": created["token"]}
    async with httpx.AsyncClient(transport=page, base_url="http://a", cookies=cookies) as browser:
        opened = asyncio.create_task(browser.get(f"{_BASE}/events"))
        done, _ = await asyncio.wait([opened], timeout=0.3)
        assert not done
        await asyncio.to_thread(tokens.run, "revoke", created["id"])
        ended = await opened
        assert ended.status_code == 200
        assert ended.text.count("event: measurement") == 2
        assert (await browser.get(f"{_BASE}/events")).status_code == 401
        asked = await browser.get(_BASE)
        assert asked.status_code == 303
        assert asked.headers["location"] == f"/sign-in?next={_BASE}"
    await app.state.context.stop()


def test_browsers_need_a_certificate_where_an_authority_is_given_and_new_ones_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_REFRESH_S", 0.02)
    authority = Authority(tmp_path)
    first, second = authority.issue("server"), authority.issue("next")
    own = authority.client()

    async def visit() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        tls = CertificateFiles(authority.ca(), *first)
        backend = Backend("127.0.0.1:1")
        page = serving.serving(backend, WebLimits(), listener=listener, tls=tls, grace_s=1)
        async with page as address:
            stranger = ssl.create_default_context(cafile=authority.ca())
            stranger.maximum_version = ssl.TLSVersion.TLSv1_2  # whose handshakes fail at once
            with pytest.raises((ssl.SSLError, ConnectionError), match=r"alert|reset|^$"):
                await _certificate(address.port, stranger)
            known = ssl.create_default_context(cafile=authority.ca())
            assert own.cert is not None
            known.load_cert_chain(own.cert, own.key)
            before = await _certificate(address.port, known)
            for new, used in zip(second, first, strict=True):
                new.replace(used)
            for _ in range(400):
                await asyncio.sleep(0.02)
                if await _certificate(address.port, known) != before:
                    return
            raise AssertionError("the first certificate is still served")

    asyncio.run(asyncio.wait_for(visit(), 20))


async def _certificate(port: int, context: ssl.SSLContext) -> bytes:
    """Return the certificate of a page that answers."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found
