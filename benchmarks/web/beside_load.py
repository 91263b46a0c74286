"""Open pages beside a busy service, compared with a service without a page."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from advisor.local.server import LocalServer
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from benchmarks.rpc.load import Load
from benchmarks.rpc.rounds import Comparison, compare, wait_until_stored
from benchmarks.rpc.scale import register
from benchmarks.rpc.servers import resident_bytes
from benchmarks.web.open_pages import OpenPages
from benchmarks.web.processes import wait_until_idle, web_process

GROUPS = 100
_STORED_S = 2.0
_LIVE_RUNS = 20  # the runs that the pages show


@dataclass(frozen=True, slots=True)
class BesideLoad:
    """What a service does beside open pages.

    Attributes:
        rpc: Answers per second, compared with those of a service without a page.
        received_per_s: Measurements that all pages together received, per second of load.
        web_bytes: Resident memory of the page's process with all pages open.
        web_bytes_before: The same before the first page was opened.
    """

    rpc: Comparison
    received_per_s: float
    web_bytes: float
    web_bytes_before: float


async def beside_load(
    folder: Path,
    web_arguments: tuple[str, ...],
    *,
    pages: int,
    streams: int,
    seconds: float,
    rounds: int,
) -> BesideLoad:
    """Measure two services alternately: one with open pages, and one without a page.

    Args:
        folder: Folder for Redis.
        web_arguments: Arguments of ``advisor serve`` that start the page.
        pages: Number of open pages.
        streams: Number of streams of each service.
        seconds: Duration of a round.
        rounds: Pairs of rounds.
    """
    async with contextlib.AsyncExitStack() as stack:
        embedded = stack.enter_context(EmbeddedRedis(folder))
        redis = await stack.enter_async_context(connect(embedded.url, timeout_s=60, retries=0))
        loads = []
        servers = []
        for label, arguments in (("live", web_arguments), ("plain", ())):
            server = stack.enter_context(LocalServer(None, "--redis-url", embedded.url, *arguments))
            register(server.address, [GROUPS])
            load = Load(server.address, "stream", callers=streams, groups=GROUPS, label=label)
            loads.append(await stack.enter_async_context(load))
            servers.append(server)

        async def settle() -> None:
            """Wait for the telemetry of the last round, but not for what was lost."""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STORED_S):
                    for load in loads:
                        await wait_until_stored(redis, load)

        await settle()
        web = web_process(servers[0].pid)
        before = resident_bytes(web)
        opened = await asyncio.to_thread(
            stack.enter_context,
            OpenPages(servers[0].web_url(), loads[0].names[:_LIVE_RUNS], pages),
        )

        async def settle_with_pages() -> None:
            """Wait until the pages show the last round, too."""
            await settle()
            await wait_until_idle(web)

        counted = opened.received()
        rpc = await compare(*loads, rounds=rounds, seconds=seconds, settle=settle_with_pages)
        loaded_s = (rounds + 0.5) * seconds  # with the round that warms up
        received = (opened.received() - counted) / loaded_s
        return BesideLoad(rpc, received, resident_bytes(web), before)
