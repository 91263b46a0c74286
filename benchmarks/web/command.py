"""``python -m benchmarks web``: the web page with a large run, and beside a busy service."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.rpc.scale import register
from benchmarks.web.beside_load import beside_load
from benchmarks.web.first_view import FirstView, first_view
from benchmarks.web.large_run import store_run

_RUN = "large"
_MIB = 2**20
_ARGUMENTS = (
    *("--http", "0", "--http-max-live-pages", "100000", "--http-max-requests-per-s", "100000"),
)


@dataclass(frozen=True, slots=True)
class _Size:
    """The size of the benchmark.

    Attributes:
        groups: Groups of the large run.
        points: Its measurements.
        views: Cold first views, each of a new service.
        pages: Open pages beside the load.
        streams: Streams of the load.
        seconds: Duration of a round of the load.
        rounds: Pairs of rounds, with and without pages.
    """

    groups: int = 10_000
    points: int = 1_000
    views: int = 3
    pages: int = 200
    streams: int = 1_000
    seconds: float = 4.0
    rounds: int = 6


_QUICK = _Size(groups=500, points=40, views=1, pages=8, streams=20, seconds=0.5, rounds=1)


def web(
    quick: Annotated[
        bool, typer.Option("--quick", help="Use a toy size, to check that the benchmark runs.")
    ] = False,
    points: Annotated[
        int | None, typer.Option(min=2, max=10_000, help="Measurements of the large run.")
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Measure the first view of a large run in a browser, and the service beside open pages.

    It takes about three minutes. A measurement of the large run takes 0.6 MB of memory.
    """
    size = _QUICK if quick else _Size()
    if points is not None:
        size = replace(size, points=points)
    figures = uvloop.run(_figures(size, Console(stderr=True)))
    emit(figures, as_json=as_json, out=out)
    if not as_json:
        Console().print(figures)


async def _figures(size: _Size, notes: Console) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="web-") as name:
        folder = Path(name)
        views = await _views(folder / "large", size, notes)
        notes.print(f"{size.streams} streams, with and without {size.pages} open pages")
        beside = await beside_load(
            folder / "load",
            _ARGUMENTS,
            pages=size.pages,
            streams=size.streams,
            seconds=size.seconds,
            rounds=size.rounds,
        )

    def median(figure: Callable[[FirstView], float]) -> float:
        return statistics.median(map(figure, views))

    return {
        "groups": size.groups,
        "points": size.points,
        "first_view_ms": median(lambda view: view.milliseconds),
        "first_view_script_ms": median(lambda view: view.script_milliseconds),
        "first_view_layout_ms": median(lambda view: view.layout_milliseconds),
        "bytes": median(lambda view: view.bytes),
        "draw_ms_10k_groups": median(lambda view: view.draw_milliseconds),
        "read_s": median(lambda view: view.read_seconds),
        "web_mib_large_run": median(lambda view: view.web_bytes) / _MIB,
        "sse_clients": size.pages,
        "sse_events_per_s": beside.received_per_s,
        "web_mib_with_pages": beside.web_bytes / _MIB,
        "web_mib_without_pages": beside.web_bytes_before / _MIB,
        "streams": size.streams,
        "rpc_per_s_without_pages": beside.rpc.other_per_second,
        "rpc_per_s_with_pages": beside.rpc.per_second,
        "rpc_ratio": beside.rpc.throughput_ratio,
        "rpc_spread": list(beside.rpc.throughput_spread),
        "p99_ratio": beside.rpc.p99_ratio,
        "p99_spread": list(beside.rpc.p99_spread),
    }


async def _views(folder: Path, size: _Size, notes: Console) -> list[FirstView]:
    """Return first views of a large run, each of a service that has read nothing before."""
    views: list[FirstView] = []
    with EmbeddedRedis(folder) as embedded:
        notes.print(f"storing a run of {size.groups} groups and {size.points} measurements")
        await store_run(embedded.url, _RUN, size.groups, size.points)
        for _ in range(size.views):
            with LocalServer(None, "--redis-url", embedded.url, *_ARGUMENTS) as server:
                if not views:
                    register(server.address, [size.groups])
                views.append(await asyncio.to_thread(first_view, server, _RUN, size.points))
    return views
