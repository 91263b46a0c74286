"""Live pages: measurements as server-sent events, whose ids are those of the run's history."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from advisor.web.charts import added_values
from advisor.web.context import Context
from advisor.web.errors import BadQueryError
from advisor.web.history import Row
from advisor.web.numbers import to_json
from advisor.web.run_feed import RunFeed
from fslr.errors import AuthenticationError, ServiceError

_EVENT_ID = re.compile(r"([0-9]{1,18}-[0-9]{1,18})?")
_RETRY_MS = 1_000
_CHECK_S = 10.0  # how often the token is checked again


async def events(context: Context, request: Request) -> Response:
    """Send the measurements of a run after the last one that the page has.

    A browser that reconnects sends the id of the last event in the header ``Last-Event-ID``, so it
    misses nothing and gets nothing twice. The event ``reload`` tells a page to fetch its curves
    again: they were an outline until now, it has missed more measurements than are sent one by
    one, or the run was restarted with a different layout.

    Raises:
        BadQueryError: The id is not that of an event.
        LimitExceededError: Too many live pages are open.
    """
    after_id = request.headers.get("last-event-id") or request.query_params.get("after", "")
    if not _EVENT_ID.fullmatch(after_id):
        raise BadQueryError(f"after={after_id[:40]!r} is not the id of an event")
    feed = await context.feed(request)
    viewer = context.limited_as(request)
    context.limits.check_live_pages(viewer)

    async def stream() -> AsyncIterator[bytes]:
        # Without an answer of the service the connection ends, and the page connects again.
        with context.limits.live_page(viewer), contextlib.suppress(ServiceError):
            async for chunk in _stream(context, request, feed, after_id):
                yield chunk

    return StreamingResponse(
        stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def _stream(
    context: Context, request: Request, feed: RunFeed, after_id: str
) -> AsyncIterator[bytes]:
    yield f"retry: {_RETRY_MS}\n\n".encode()
    shape = request.query_params.get("shape", feed.history.shape)
    was_complete = request.query_params.get("complete", "1") == "1"
    problem = ""
    checked = time.monotonic()
    async for update in feed.updates_after(after_id):
        is_outdated = feed.complete and not was_complete
        is_other = shape != feed.history.shape
        if is_outdated or is_other or update.must_reload or feed.is_behind(after_id):
            yield _message("reload")
            return
        if update.rows:
            after_id = update.rows[-1][0]
            yield b"".join(_measurement(feed, row) for row in update.rows)
        if feed.problem != problem:
            problem = feed.problem
            yield _message("problem", data=to_json({"problem": problem}))
        if time.monotonic() - checked > _CHECK_S:
            checked = time.monotonic()
            if not await _may_stay(context, request):
                return
        if not update.rows:
            yield b": still here\n\n"  # fails once the browser is gone


async def _may_stay(context: Context, request: Request) -> bool:
    """Return whether the viewer's token is still valid, as far as the service can tell."""
    try:
        await context.signed_in(request)
    except AuthenticationError:
        return False
    except ServiceError:
        return True  # the page says so, and reconnects
    return True


def _measurement(feed: RunFeed, row: Row) -> bytes:
    """Return a measurement as the page adds it to its curves; all pages of a run share it."""
    event_id, values = row
    encoded = feed.encoded.get(event_id)
    if encoded is None:
        step = int(values["step"][0])
        data = to_json({"step": step, "charts": added_values(values)})
        encoded = feed.encoded[event_id] = _message("measurement", event_id, data)
    return encoded


def _message(event: str, event_id: str = "", data: bytes = b"{}") -> bytes:
    identified = f"id: {event_id}\n".encode() if event_id else b""
    return b"event: %b\n%bdata: %b\n\n" % (event.encode(), identified, data)
