"""Parts of pages that all pages of a run share, each made at most once in a while."""

from __future__ import annotations

import asyncio
import gzip
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

_GZIP_LEVEL = 5
_MIN_GZIP_BYTES = 1_000


@dataclass(slots=True)
class _Fragment:
    """A part of a page.

    Attributes:
        version: What it shows; -1: it was not made yet.
        made: When it was made, in seconds of a monotonic clock.
        data: Its text.
        packed: The same, compressed; empty: it is too short for that.
        making: Held while it is made.
    """

    version: int = -1
    made: float = -math.inf
    data: bytes = b""
    packed: bytes = b""
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


class Fragments:
    """The parts of the pages of one run.

    A run that reports several times a second, with many open pages, would otherwise have its
    figures made again for nearly every request. A request waits until the next version may be
    made, so what it gets is never older than the request.
    """

    def __init__(self) -> None:
        self._fragments: dict[str, _Fragment] = {}

    async def answer(
        self,
        request: Request,
        key: str,
        version: Callable[[], int],
        make: Callable[[], bytes],
        media_type: str,
        *,
        period_s: float,
    ) -> Response:
        """Return an answer with a part of a page.

        Args:
            request: The request.
            key: What the part is; few of them, as they are kept.
            version: Returns the current version of what it shows, at least 0.
            make: Makes the part.
            media_type: Its type.
            period_s: Minimum time between two versions, in seconds.
        """
        fragment = self._fragments.setdefault(key, _Fragment())
        wanted = version()
        async with fragment.making:
            if fragment.version < wanted:
                await asyncio.sleep(max(fragment.made + period_s - time.monotonic(), 0.0))
                found = version()
                fragment.data = make()
                is_long = len(fragment.data) >= _MIN_GZIP_BYTES
                fragment.packed = gzip.compress(fragment.data, _GZIP_LEVEL) if is_long else b""
                fragment.version, fragment.made = found, time.monotonic()
        headers = {"vary": "Accept-Encoding"}
        if fragment.packed and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(fragment.packed, headers=headers, media_type=media_type)
        return Response(fragment.data, headers=headers, media_type=media_type)
