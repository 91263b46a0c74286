"""``python -m benchmarks rpc``: throughput, latency and memory of the service."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from advisor.local.server import LocalServer
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.registry import FEW
from benchmarks.rpc import scale, start_time
from benchmarks.rpc.load import Kind, Load
from benchmarks.rpc.peer_comparison import compare_with_peers
from benchmarks.rpc.rounds import compare, wait_until_stored
from benchmarks.rpc.servers import EchoServer, has_option

_GROUPS = 100
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class _Size:
    """The size of the benchmark.

    Attributes:
        callers: Concurrent streams or unary callers.
        rounds: Pairs of rounds.
        seconds: Duration of a round.
        groups: Numbers of groups per run to compare.
        streams: Streams to hold open.
        cached: Profiles to hold in memory.
        starts: Services to start.
        peer_callers: Concurrent training jobs in the comparison with peers.
        peer_seconds: Duration of that comparison.
    """

    callers: int = 32
    rounds: int = 10
    seconds: float = 2.0
    groups: tuple[int, ...] = (10, 100, 1_000, 10_000)
    streams: int = 1_000
    cached: int = 200
    starts: int = 5
    peer_callers: int = 8
    peer_seconds: float = 10.0


_QUICK = _Size(
    callers=4,
    rounds=1,
    seconds=0.2,
    groups=(10, 100),
    streams=20,
    cached=5,
    starts=1,
    peer_callers=1,
    peer_seconds=0.5,
)


def rpc(
    profiles: Annotated[
        int, typer.Option(min=20, help="Profiles in the large registry.")
    ] = 100_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use a toy size, to check that the benchmark runs.")
    ] = False,
    peer_python: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH of the interpreter that a peer (optuna, vizier) is installed in."
        ),
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Measure the service, alone and compared with an echo server and with other services."""
    pythons = dict(one.split("=", 1) for one in peer_python or ())
    size = _QUICK if quick else _Size()
    result = uvloop.run(_measure(size, profiles, pythons, Console(stderr=True)))
    emit(result, as_json=as_json, out=out)
    if as_json:
        return
    _print(result)


async def _measure(
    size: _Size, profiles: int, pythons: dict[str, str], notes: Console
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with EmbeddedRedis(folder / "redis") as embedded:
            async with connect(embedded.url, timeout_s=30, retries=0) as redis:
                with LocalServer(None, "--redis-url", embedded.url) as server:
                    scale.register(server.address, sorted({_GROUPS, *size.groups}))
                    result |= await _compare_with_echo(server, redis, size, notes)
                    notes.print("more groups, more streams", style="dim")
                    result["groups"] = await scale.many_groups(
                        server.address,
                        redis,
                        size.groups,
                        callers=size.callers,
                        seconds=size.seconds,
                    )
                with LocalServer(None, "--redis-url", embedded.url) as server:
                    result["bytes_per_stream"] = await scale.many_streams(
                        server, redis, size.streams
                    )
                with LocalServer(None, "--redis-url", embedded.url) as server:
                    result["bytes_per_cached_profile"] = await scale.cached_profile_bytes(
                        server, size.cached
                    )
                await _compare_workers(embedded.url, size, result, missing)
                notes.print("peers", style="dim")
                with LocalServer(None, "--redis-url", embedded.url) as server:
                    result["peers"], missing_peers = await asyncio.to_thread(
                        compare_with_peers,
                        server.address,
                        pythons,
                        callers=size.peer_callers,
                        seconds=size.peer_seconds,
                    )
                    missing |= missing_peers
            result["start_s"] = start_time.first_answer_s(embedded.url, size.starts)
            result["import_s"] = start_time.import_s(size.starts)
        notes.print("more profiles", style="dim")
        compared, redis_bytes = await scale.many_profiles(
            folder,
            profiles,
            callers=size.callers,
            rounds=size.rounds,
            seconds=size.seconds,
            notes=notes,
        )
    result["profiles_ratio"] = compared.throughput_ratio
    result["profiles_spread"] = list(compared.throughput_spread)
    result["profiles"] = profiles
    result["redis_bytes_per_profile"] = redis_bytes
    result["cores"] = os.cpu_count()
    result["not_measured"] = missing
    return result


async def _compare_with_echo(
    server: LocalServer, redis: Redis, size: _Size, notes: Console
) -> dict[str, Any]:
    """Compare streams and unary calls with the echo server, and count what is stored."""
    result: dict[str, Any] = {}
    kinds: tuple[Kind, ...] = ("stream", "once")
    for kind in kinds:
        notes.print(f"{kind}, compared with the echo server", style="dim")
        used = await scale.used_bytes(redis)
        async with Load(
            server.address, kind, callers=size.callers, groups=_GROUPS, label=kind
        ) as own:
            with EchoServer(own.answer.SerializeToString()) as echo:
                async with Load(
                    echo.address, kind, callers=size.callers, groups=_GROUPS, label=kind
                ) as other:

                    async def settle(load: Load = own) -> None:
                        await wait_until_stored(redis, load)

                    compared = await compare(
                        own, other, rounds=size.rounds, seconds=size.seconds, settle=settle
                    )
            lost = own.sent - await wait_until_stored(redis, own)
            figures = compared.figures() | {"lost": lost, "sent": own.sent}
            kept = min(own.sent - lost, 10_000 * size.callers)
            figures["redis_bytes_per_measurement"] = (await scale.used_bytes(redis) - used) / kept
        result[kind] = figures
    return result


async def _compare_workers(
    redis_url: str, size: _Size, result: dict[str, Any], missing: dict[str, str]
) -> None:
    if not has_option("--workers"):
        result["workers_2_ratio"] = None
        missing["workers_2_ratio"] = "`advisor serve` has no option --workers"
        return
    compared = await scale.more_workers(
        redis_url, _WORKERS, callers=size.callers, rounds=size.rounds, seconds=size.seconds
    )
    result["workers_2_ratio"] = compared.throughput_ratio
    result["workers_2_spread"] = list(compared.throughput_spread)


def _print(result: dict[str, Any]) -> None:
    table = Table("what", "value", title=f"The service on {result['cores']} cores")
    for kind in ("stream", "once"):
        found = result[kind]
        low, high = found["throughput_spread"]
        table.add_row(
            f"{kind}: throughput, to the echo server",
            f"{found['throughput_ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
        low, high = found["p99_spread"]
        table.add_row(
            f"{kind}: p99 latency, to the echo server",
            f"{found['p99_ratio']:.1f} ({low:.1f} to {high:.1f})",
        )
        table.add_row(f"{kind}: answers per second", f"{found['per_second']:,.0f}")
        table.add_row(f"{kind}: measurements not stored", f"{found['lost']:,}")
    table.add_row(
        f"throughput ratio, {result['profiles']:,} profiles to {FEW}",
        f"{result['profiles_ratio']:.2f}",
    )
    for groups, per_second in result["groups"].items():
        table.add_row(f"answers per second, {int(groups):,} groups", f"{per_second:,.0f}")
    for name, unit, scale_by in (
        ("bytes_per_stream", "KiB", 1024),
        ("bytes_per_cached_profile", "KiB", 1024),
        ("start_s", "s", 1),
        ("import_s", "s", 1),
    ):
        table.add_row(name, f"{result[name] / scale_by:.2f} {unit}")
    rows = {"throughput, 2 workers to 1": result["workers_2_ratio"]}
    rows |= {f"throughput, to {name}": ratio for name, ratio in result["peers"].items()}
    for name, ratio in rows.items():
        table.add_row(name, "not measured" if ratio is None else f"{ratio:.2f}")
    for name, why in result["not_measured"].items():
        table.add_row(f"not measured: {name}", why)
    Console().print(table)
