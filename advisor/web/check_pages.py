"""The checks of a parametrization, for a run and for two runs side by side.

The sheet is that of ``advisor check``. It needs whole measurements, which the feed of a run does
not keep, so it is read on demand: all of a short history, and single events of a long one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from advisor.report.check import CheckRow, check_rows
from advisor.report.check_sentences import check_counts, check_finding, check_remedy
from advisor.report.checked_run import MAX_MEASUREMENTS, CheckedRun, EventSample
from advisor.report.texts import Texts
from advisor.web.backend import Viewer
from advisor.web.context import Context
from advisor.web.errors import BadQueryError
from advisor.web.event_ids import latest, places_over
from advisor.web.rendering import language_of
from fslr.advisor.v1 import run_service_pb2

_MAX_READ_RATES = 500_000  # a longer history is read in single events
_MAX_PAGE_EVENTS = 200
_PAGE_RATES = 40_000
_SHARED_S = 30.0

_Page = run_service_pb2.GetRunHistoryResponse
_Read = Callable[..., Coroutine[Any, Any, _Page]]


async def run_check(context: Context, request: Request) -> Response:
    """Return the sheet of a run."""
    return await _sheet(context, request, [request.path_params["run"]])


async def compared_check(context: Context, request: Request) -> Response:
    """Return the sheet of two runs.

    Raises:
        BadQueryError: A name is missing.
    """
    names = [request.query_params.get(side, "").strip() for side in ("a", "b")]
    if not all(names):
        raise BadQueryError("give two runs, such as ?a=narrow&b=wide")
    return await _sheet(context, request, list(dict.fromkeys(names)))


async def _sheet(context: Context, request: Request, names: Sequence[str]) -> Response:
    viewer, _ = await context.signed_in(request)
    project, texts = request.path_params["project"], Texts(language_of(request))
    feed = await context.feeds.get(viewer, project, names[0])
    key = "\n".join(("check", texts.language, *names))
    # Viewers with the same token share one sheet for a while.
    async with feed.computing:
        now = round(time.monotonic() / _SHARED_S)
        cached = feed.fragments.get(key)
        if cached is None or cached[0] != now:
            runs = [await _checked_run(context, viewer, project, name) for name in names]
            rows = await asyncio.to_thread(check_rows, runs)
            text = _rendered(context, runs, rows, texts)
            cached = feed.fragments[key] = (now, text)
    return HTMLResponse(cached[1])


def _rendered(
    context: Context, runs: Sequence[CheckedRun], rows: Sequence[CheckRow], texts: Texts
) -> str:
    order = list(dict.fromkeys(row.check for row in rows))
    by_check = sorted(rows, key=lambda row: order.index(row.check))
    return context.renderer.render(
        "_check.html",
        texts.language,
        runs=runs,
        counts=check_counts(rows, texts),
        rows=[(row, check_finding(row, texts), check_remedy(row, texts)) for row in by_check],
    )


async def _checked_run(context: Context, viewer: Viewer, project: str, name: str) -> CheckedRun:
    """Read a run and a sample of its history.

    Raises:
        ServiceError: The run cannot be read.
    """
    run = await context.backend.run(viewer, project, name)
    sample, groups = EventSample(run), max(len(run.opening.layout.groups), 1)
    read = functools.partial(context.backend.history, viewer, project, name)
    is_long = run.measurements * groups > _MAX_READ_RATES
    pages = _single_events(read, run) if is_long else _pages(read, _PAGE_RATES // groups)
    async with contextlib.aclosing(pages):
        async for page in pages:
            for event in page.events:
                sample.add(event)
    return await asyncio.to_thread(CheckedRun.of_sample, sample)


async def _pages(read: _Read, size: int) -> AsyncGenerator[_Page, None]:
    """Yield a whole history in pages of ``size`` events, within the bounds of a page."""
    last, more = "", True
    while more:
        page = await read(after_id=last, size=min(max(size, 1), _MAX_PAGE_EVENTS))
        yield page
        more = page.more and bool(page.events)
        last = page.events[-1].id if page.events else last


async def _single_events(read: _Read, run: run_service_pb2.Run) -> AsyncGenerator[_Page, None]:
    """Yield pages of one event each, evenly over the time of a run."""
    last = ""
    for place in places_over(run, MAX_MEASUREMENTS):
        page = await read(after_id=latest(place, last), size=1)
        yield page
        if not page.events or not page.more:
            return
        last = page.events[-1].id
