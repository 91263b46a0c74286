"""``python -m benchmarks web``: the web page with a large run, and beside a busy service."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console

from advisor.local.in_process import InProcessAdvisor
from advisor.local.server import LocalServer
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EventToStore
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from advisor.store.runs import RunStore
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.rpc.load import Load
from benchmarks.rpc.payload import PROJECT, measurements, opening, profile
from benchmarks.rpc.scale import register
from fslr.advisor.v1 import run_service_pb2

_INTERVAL = timedelta(seconds=30)
_EVENTS_AT_ONCE = 8
_LIVE_RUNS = 20  # the runs that live pages follow
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FIRST_VIEW = "#page[data-measurements]"
_DRAW_AGAIN = "document.dispatchEvent(new Event('visibilitychange'))"
_DRAWN_MS = 1_000
_MAX_WAIT_S = 60.0
_LIMITS = ("--http-max-live-pages", "100000", "--http-max-requests-per-s", "100000")


@dataclass(frozen=True, slots=True)
class FirstView:
    """What a browser needed for the page of a run.

    Attributes:
        milliseconds: From the request until the figures and the data of the charts are there.
        bytes: Size of all answers as they were sent.
        draw_milliseconds: Time to draw the three charts on top again.
    """

    milliseconds: float
    bytes: float
    draw_milliseconds: float


def web(
    groups: Annotated[int, typer.Option(help="Groups of the large run.")] = 10_000,
    points: Annotated[int, typer.Option(help="Measurements of the large run.")] = 1_000,
    pages: Annotated[int, typer.Option(help="Open live pages beside the load.")] = 200,
    streams: Annotated[int, typer.Option(help="Streams of the load.")] = 1_000,
    seconds: Annotated[float, typer.Option(help="Length of a round of the load.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Rounds with and without pages, in turns.")] = 3,
    repeats: Annotated[int, typer.Option(help="Cold first views; the median counts.")] = 3,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Measure the first view of a large run in a browser, and the service beside open pages.

    Storing a run of 10,000 groups takes about 0.6 GB of memory for 1,000 measurements.
    """
    notes = Console(stderr=True)
    figures = asyncio.run(
        _figures(
            groups, points, pages, streams, seconds=seconds, rounds=rounds, repeats=repeats,
            notes=notes,
        )
    )  # fmt: skip
    emit(figures, as_json=as_json, out=out)
    if not as_json:
        Console().print(figures)


async def _figures(
    groups: int,
    points: int,
    pages: int,
    streams: int,
    *,
    seconds: float,
    rounds: int,
    repeats: int,
    notes: Console,
) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="web-") as folder,
        contextlib.ExitStack() as stack,
    ):
        embedded = stack.enter_context(EmbeddedRedis(Path(folder)))
        notes.print(f"storing a run of {groups} groups and {points} measurements")
        await _store_run(embedded.url, "large", groups, points)
        arguments = ("--redis-url", embedded.url, "--http", "0", *_LIMITS)
        views = []
        for _ in range(repeats):  # a new service each time: nothing has been read before
            with LocalServer(None, *arguments) as server:
                views.append(await asyncio.to_thread(_first_view, server.web_url(), "large"))
        server = stack.enter_context(LocalServer(None, *arguments))
        notes.print(f"{streams} streams, with and without {pages} open pages")
        alone, beside, received = await _beside_load(
            server, pages, streams, seconds=seconds, rounds=rounds
        )
    return {
        "groups": groups,
        "points": points,
        "first_view_ms": statistics.median(view.milliseconds for view in views),
        "bytes": statistics.median(view.bytes for view in views),
        "draw_ms_10k_groups": statistics.median(view.draw_milliseconds for view in views),
        "sse_clients": pages,
        "sse_events_per_s": received,
        "streams": streams,
        "rpc_per_s_without_pages": alone,
        "rpc_per_s_with_pages": beside,
        "rpc_ratio": beside / alone,
    }


async def _store_run(redis_url: str, name: str, groups: int, points: int) -> None:
    """Store a run as the service does, without training it."""
    run = RunName(PROJECT, name)
    opened = opening(name, groups)
    opened.total_steps = 100 * points
    for group in opened.layout.groups:
        group.parameter_count = 1
    measured = measurements(groups)
    session = InProcessAdvisor(profile(groups)).open_run(opened)
    answers = [session.recommend(each) for each in measured]
    start = datetime.now(UTC) - points * _INTERVAL
    async with connect(redis_url, timeout_s=60, retries=0) as redis:
        store = RunStore(redis)
        for first in range(0, points, _EVENTS_AT_ONCE):
            events = [
                _event(run, opened, measured, answers, i, start)
                for i in range(first, min(first + _EVENTS_AT_ONCE, points))
            ]
            await store.record([(events, 0)])


def _event(
    run: RunName, opened: Any, measured: Any, answers: Any, number: int, start: datetime
) -> EventToStore:
    which = number % len(measured)
    event = run_service_pb2.RunEvent(measurement=measured[which], recommendation=answers[which])
    event.measurement.step = event.recommendation.step = 100 * number
    event.recommendation.next_measurement_step = 100 * (number + 1)
    time_ms = round((start + number * _INTERVAL).timestamp() * 1000)
    event.time.FromMilliseconds(time_ms)
    return EventToStore(
        run,
        opened.SerializeToString(),
        event.SerializeToString(),
        100 * number,
        time_ms,
        loss=2.5,
        next_step=100 * (number + 1),
    )


def _first_view(url: str, run: str) -> FirstView:
    """Open the page of a run in a browser that has nothing cached."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only this benchmark needs it

    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        raise typer.BadParameter("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        sizes: list[float] = []
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda e: sizes.append(e["encodedDataLength"]))
        page.goto(f"{url}/healthz")  # the browser itself is warm
        sizes.clear()
        started = time.perf_counter()
        page.goto(f"{url}/projects/{PROJECT}/runs/{run}")
        page.wait_for_selector(_FIRST_VIEW)
        elapsed = time.perf_counter() - started
        total = sum(sizes)
        page.locator('[data-chart="blocks"]').scroll_into_view_if_needed()
        page.wait_for_selector('[data-chart="shares"] .uplot')
        page.evaluate(_DRAW_AGAIN)
        page.wait_for_timeout(_DRAWN_MS)
        drawn = page.evaluate("performance.getEntriesByName('draw-charts').at(-1).duration")
        browser.close()
    return FirstView(1000 * elapsed, total, drawn)


async def _beside_load(
    server: LocalServer, pages: int, streams: int, *, seconds: float, rounds: int
) -> tuple[float, float, float]:
    """Return answers per second without and with open pages, and events per second of all pages."""
    register(server.address, [100])
    alone, beside, received = [], [], []
    async with Load(server.address, "stream", callers=streams, groups=100, label="live") as load:
        await load.run(seconds)
        for _ in range(rounds):
            alone.append((await load.run(seconds)).per_second)
            async with _open_pages(server.web_url(), load.names[:_LIVE_RUNS], pages) as counts:
                before = sum(counts)
                beside.append((await load.run(seconds)).per_second)
                received.append((sum(counts) - before) / seconds)
    return tuple(map(statistics.median, (alone, beside, received)))  # type: ignore[return-value]


@contextlib.asynccontextmanager
async def _open_pages(url: str, runs: list[str], count: int) -> AsyncIterator[list[int]]:
    """Keep live connections open; yield how many events each has received."""
    counts = [0] * count
    received = [asyncio.Event() for _ in range(count)]
    tasks = [
        asyncio.create_task(_follow(url, runs[i % len(runs)], counts, i, received[i]))
        for i in range(count)
    ]
    try:
        async with asyncio.timeout(_MAX_WAIT_S):
            await asyncio.gather(*(event.wait() for event in received))
        await asyncio.sleep(1)  # until each page has caught up
        yield counts
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [error for error in results if isinstance(error, Exception)]
        if errors:
            raise errors[0]


async def _follow(
    url: str, run: str, counts: list[int], number: int, received: asyncio.Event
) -> None:
    """Receive the events of a run, as a browser does."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    path = f"/projects/{PROJECT}/runs/{run}/events"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    try:
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{path} answered {status!r}")
        while line := await reader.readline():
            if line.startswith(b"id: "):
                counts[number] += 1
                received.set()
        raise RuntimeError(f"{path} ended")
    finally:
        writer.close()
