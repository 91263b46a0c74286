"""``python -m benchmarks rpc``: what the service does in a second, and what that takes."""

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
from benchmarks.rpc import scale, starting
from benchmarks.rpc.load import Kind, Load
from benchmarks.rpc.ours import peers
from benchmarks.rpc.rounds import compare, stored
from benchmarks.rpc.servers import EchoServer, has_option

_GROUPS = 100
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class _Size:
    """How much is measured.

    Attributes:
        callers: Streams, or callers of single messages, at a time.
        rounds: Pairs of rounds.
        seconds: Length of a round.
        groups: Groups of the runs whose number grows.
        streams: Streams that are held open.
        cached: Profiles that are held in memory.
        starts: Services that are started.
        peer_callers: Training jobs at a time, for peers.
        peer_seconds: For how long.
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
    starts=3,
    peer_callers=1,
    peer_seconds=0.5,
)


def rpc(
    profiles: Annotated[
        int, typer.Option(min=20, help="Profiles in the large registry.")
    ] = 100_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="A toy size, to see that it runs.")
    ] = False,
    peer_python: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH of the interpreter that has a peer (optuna, vizier)."),
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Measure the service beside a server that does nothing, and with more of everything."""
    pythons = dict(one.split("=", 1) for one in peer_python or ())
    size = _QUICK if quick else _Size()
    result = uvloop.run(_result(size, profiles, pythons, Console(stderr=True)))
    emit(result, as_json=as_json, out=out)
    if as_json:
        return
    _print(result)


async def _result(
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
                    result |= await _beside_echo(server, redis, size, notes)
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
                await _workers(embedded.url, size, result, missing)
                notes.print("peers", style="dim")
                with LocalServer(None, "--redis-url", embedded.url) as server:
                    result["peers"], without = await asyncio.to_thread(
                        peers,
                        server.address,
                        pythons,
                        callers=size.peer_callers,
                        seconds=size.peer_seconds,
                    )
                    missing |= without
            result["start_s"] = starting.first_answer_s(embedded.url, size.starts)
            result["import_s"] = starting.import_s(size.starts)
        notes.print("more profiles", style="dim")
        compared, of_redis = await scale.many_profiles(
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
    result["redis_bytes_per_profile"] = of_redis
    result["cores"] = os.cpu_count()
    result["not_measured"] = missing
    return result


async def _beside_echo(
    server: LocalServer, redis: Redis, size: _Size, notes: Console
) -> dict[str, Any]:
    """Return streams and single messages beside the echo, and what is stored of them."""
    result: dict[str, Any] = {}
    kinds: tuple[Kind, ...] = ("stream", "once")
    for kind in kinds:
        notes.print(f"{kind}, beside the server that does nothing", style="dim")
        used = await scale.used_bytes(redis)
        async with Load(
            server.address, kind, callers=size.callers, groups=_GROUPS, label=kind
        ) as own:
            with EchoServer(own.answer.SerializeToString()) as echo:
                async with Load(
                    echo.address, kind, callers=size.callers, groups=_GROUPS, label=kind
                ) as other:

                    async def settle(load: Load = own) -> None:
                        await stored(redis, load)

                    compared = await compare(
                        own, other, rounds=size.rounds, seconds=size.seconds, settle=settle
                    )
            lost = own.sent - await stored(redis, own)
            found = compared.figures() | {"lost": lost, "sent": own.sent}
            kept = min(own.sent - lost, 10_000 * size.callers)
            found["redis_bytes_per_measurement"] = (await scale.used_bytes(redis) - used) / kept
        result[kind] = found
    return result


async def _workers(
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
    table = Table("figure", "value", title=f"the service on {result['cores']} cores")
    for kind in ("stream", "once"):
        found = result[kind]
        low, high = found["throughput_spread"]
        table.add_row(
            f"{kind}: answers a second, of the echo's",
            f"{found['throughput_ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
        low, high = found["p99_spread"]
        table.add_row(
            f"{kind}: p99, of the echo's", f"{found['p99_ratio']:.1f} ({low:.1f} to {high:.1f})"
        )
        table.add_row(f"{kind}: answers a second", f"{found['per_second']:,.0f}")
        table.add_row(f"{kind}: measurements not stored", f"{found['lost']:,}")
    table.add_row(f"with {result['profiles']:,} profiles", f"{result['profiles_ratio']:.2f}")
    for groups, per_second in result["groups"].items():
        table.add_row(f"answers a second, {int(groups):,} groups", f"{per_second:,.0f}")
    for name, unit, scale_by in (
        ("bytes_per_stream", "KiB", 1024),
        ("bytes_per_cached_profile", "KiB", 1024),
        ("start_s", "s", 1),
        ("import_s", "s", 1),
    ):
        table.add_row(name, f"{result[name] / scale_by:.2f} {unit}")
    rows = {"2 workers": result["workers_2_ratio"]}
    rows |= {f"against {name}": ratio for name, ratio in result["peers"].items()}
    for name, ratio in rows.items():
        table.add_row(name, "not measured" if ratio is None else f"{ratio:.2f} times")
    for name, why in result["not_measured"].items():
        table.add_row(f"not measured: {name}", why)
    Console().print(table)
