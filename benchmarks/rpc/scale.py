"""How the service scales with profiles, groups, streams and workers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich.console import Console

from advisor.local.server import LocalServer
from advisor.store.profiles import ProfileStore
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from benchmarks.registry import FEW, fill
from benchmarks.rpc.load import Load
from benchmarks.rpc.payload import profile, profile_name, recommend_request
from benchmarks.rpc.rounds import Comparison, compare, wait_until_stored
from benchmarks.rpc.servers import resident_bytes
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2_grpc

_WARM_STREAMS = 50
_DEADLINE_S = 120.0


def register(address: str, groups: Sequence[int]) -> None:
    """Register the profiles for runs with these numbers of groups."""
    with AdvisorClient(address, deadline_s=_DEADLINE_S) as client:
        for count in groups:
            client.register_profile(profile_name(count), profile(count))


async def many_profiles(
    folder: Path, profiles: int, *, callers: int, rounds: int, seconds: float, notes: Console
) -> tuple[Comparison, float]:
    """Compare a service with many stored profiles with one that has few.

    Callers use unary calls, each of which looks up a name; a stream does so only once.

    Returns:
        The comparison, and the bytes that a small profile takes in Redis.
    """
    async with contextlib.AsyncExitStack() as stack:
        loads, used = [], []
        for count in (profiles, FEW):
            embedded = stack.enter_context(EmbeddedRedis(folder / str(count)))
            redis = await stack.enter_async_context(connect(embedded.url, timeout_s=30, retries=0))
            await fill(ProfileStore(redis), count, notes)
            used.append(await used_bytes(redis))
            server = stack.enter_context(LocalServer(None, "--redis-url", embedded.url))
            register(server.address, [100])
            load = Load(server.address, "once", callers=callers, groups=100, label="")
            loads.append(await stack.enter_async_context(load))
        found = await compare(*loads, rounds=rounds, seconds=seconds)
    return found, (used[0] - used[1]) / (profiles - FEW)


async def many_groups(
    address: str, redis: Redis, counts: Sequence[int], *, callers: int, seconds: float
) -> dict[str, float]:
    """Return answers per second by number of groups, with telemetry."""
    found = {}
    for count in counts:
        label = f"groups-{count}"
        async with Load(address, "stream", callers=callers, groups=count, label=label) as load:
            await load.run(seconds / 2)
            found[str(count)] = (await load.run(seconds)).per_second
            await wait_until_stored(redis, load)
    return found


async def many_streams(server: LocalServer, redis: Redis, streams: int) -> float:
    """Return the memory of the service that one open stream of 100 groups takes, in bytes."""
    address = server.address
    async with Load(address, "stream", callers=_WARM_STREAMS, groups=100, label="warm") as load:
        await load.run(0.5)
        await wait_until_stored(redis, load)
        before = resident_bytes(server.pid)
        async with Load(
            address, "stream", callers=streams, groups=100, label="open"
        ) as streams_load:
            await wait_until_stored(redis, streams_load)
            after = resident_bytes(server.pid)
    return (after - before) / streams


async def cached_profile_bytes(server: LocalServer, count: int) -> float:
    """Return the memory of the service that a profile of 50 groups takes, in bytes."""
    with AdvisorClient(server.address) as client:
        for i in range(count):
            client.register_profile(f"{profile_name(100)}-{i}", profile(100, seed=i))
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(client.channel())
        stub.RecommendLROnce(recommend_request("", 100), timeout=_DEADLINE_S)
        before = resident_bytes(server.pid)
        for i in range(count):
            request = recommend_request("", 100)
            request.opening.profile = f"{profile_name(100)}-{i}"
            stub.RecommendLROnce(request, timeout=_DEADLINE_S)
        after = resident_bytes(server.pid)
    return (after - before) / count


async def more_workers(
    redis_url: str, workers: int, *, callers: int, rounds: int, seconds: float
) -> Comparison:
    """Compare a service with several workers with one that has a single worker."""
    async with contextlib.AsyncExitStack() as stack:
        loads = []
        for number in (workers, 1):
            arguments = ["--redis-url", redis_url]
            arguments += ["--workers", str(number)] if number > 1 else []
            server = stack.enter_context(LocalServer(None, *arguments))
            load = Load(
                server.address,
                "stream",
                callers=callers,
                groups=100,
                label=f"workers-{number}",
                channels=16,  # the kernel distributes connections among workers at random
            )
            loads.append(await stack.enter_async_context(load))
        return await compare(*loads, rounds=rounds, seconds=seconds)


async def used_bytes(redis: Redis) -> int:
    """Return the memory that the data of a Redis server take, in bytes."""
    found: Any = await redis.info("memory")
    return int(found["used_memory_dataset"])
