"""Answers in parts, each of which reaches the browser at once."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

_LEVEL = 5
_GZIP = 16 + zlib.MAX_WBITS


def streamed_page(request: Request, parts: AsyncIterator[str]) -> StreamingResponse:
    """Return a page in parts.

    The middleware that compresses answers would hold back a part until there is more to compress,
    so it is done here.

    Args:
        request: The request.
        parts: The parts of the page.
    """
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return StreamingResponse(parts, media_type="text/html")
    headers = {"content-encoding": "gzip", "vary": "accept-encoding"}
    return StreamingResponse(_packed(parts), media_type="text/html", headers=headers)


async def _packed(parts: AsyncIterator[str]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    async for part in parts:
        yield packer.compress(part.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
