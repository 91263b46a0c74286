"""A page whose frame is sent before its content is there."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from advisor.web.rendering import Renderer
from fslr.errors import UnavailableError


def _request(encoding: str) -> Request:
    return Request({
        "type": "http",
        "method": "GET",
        "path": "/projects/nlp/runs/a",
        "query_string": b"lang=ja",
        "headers": [(b"accept-encoding", encoding.encode()), (b"host", b"page")],
    })


async def _parts(encoding: str, error: Exception | None) -> tuple[str, str, StreamingResponse]:
    """Return what is sent before the content was asked for, and the rest."""
    asked = False

    async def content() -> Mapping[str, Any]:
        nonlocal asked
        asked = True
        if error is not None:
            raise error
        return {"kind": "not_found", "message": "<i>gone</i>"}

    answer = Renderer().page_in_parts(_request(encoding), "error.html", content, project="nlp")
    assert isinstance(answer, StreamingResponse)
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    found = ["", ""]
    async for part in answer.body_iterator:
        assert isinstance(part, str | bytes)
        found[asked] += part if isinstance(part, str) else unpack.decompress(part).decode()
    return found[0], found[1], answer


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_the_frame_is_sent_before_the_content_is_there(encoding: str) -> None:
    frame, rest, answer = asyncio.run(_parts(encoding, None))
    assert answer.headers.get("content-encoding", "") == encoding
    assert "language=ja" in answer.headers["set-cookie"]
    assert frame.index("</head>") < frame.index("<main")
    assert 'href="/static/page.css"' in frame
    assert "&lt;i&gt;gone&lt;/i&gt;" in rest
    assert rest.rstrip().endswith("</html>")
    whole = Renderer().render("error.html", "ja", kind="not_found", message="<i>gone</i>")
    assert whole.partition("<main")[2] == (frame + rest).partition("<main")[2]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (UnavailableError("Redis does not answer"), "Redis does not answer"),
        (RuntimeError("secret"), "内部"),
    ],
)
def test_a_page_without_content_says_why(error: Exception, shown: str) -> None:
    _, rest, _ = asyncio.run(_parts("", error))
    assert shown in rest
    assert "secret" not in rest
    assert rest.rstrip().endswith("</html>")
