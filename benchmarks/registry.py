"""``python -m benchmarks registry``: times of the registry with 10 and with 100,000 profiles."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from advisor.local.server import LocalServer
from advisor.policy import Group, Layout
from advisor.registry.audit import AuditOrigin
from advisor.registry.profiles import ProfileContent, ProfileHeader, Provenance
from advisor.registry.resource_names import ProfileName, ProfileReference
from advisor.store.codec import encode
from advisor.store.profiles import ProfileStore
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from advisor.wire import content_to_proto
from benchmarks.provenance import AsJson, Out, emit
from fslr import AdvisorClient

FEW = 10  # profiles in the small registry
_CONCURRENCY = 100  # concurrent registrations while filling
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_PROVENANCE = Provenance(
    model="benchmark",
    optimizer="Adam",
    batch_size=1,
    dataset="none",
    commit="none",
    author="the benchmark",
    width=1,
    depth=1,
    record_time=_NOW,
)

_Task = Callable[[ProfileStore, ProfileName], Awaitable[object]]


async def _get(store: ProfileStore, name: ProfileName) -> object:
    return await store.get(ProfileReference(name))


async def _resolve_alias(store: ProfileStore, name: ProfileName) -> object:
    return await store.resolve(ProfileReference(name, "prod"))


async def _list(store: ProfileStore, name: ProfileName) -> object:
    # Both registries list the same number of entries, from the middle of the list.
    return await store.index.page(name.project, after=name.profile, size=FEW // 2 - 2, labels={})


async def _filter(store: ProfileStore, name: ProfileName) -> object:
    # One profile has both labels; half of the profiles have the first one.
    labels = {"half": "1", "i": str(int(name.profile[1:]))}
    return await store.index.page(name.project, after="", size=FEW, labels=labels)


_TASKS: dict[str, _Task] = {
    "get": _get,
    "alias": _resolve_alias,
    "list": _list,
    "filter": _filter,
}


def registry(
    profiles: Annotated[
        int, typer.Option(min=20, help="Profiles in the large registry.")
    ] = 100_000,
    rounds: Annotated[int, typer.Option(min=10, help="Paired rounds.")] = 2_000,
    groups: Annotated[int, typer.Option(min=1, help="Groups of the very large profile.")] = 10_000,
    points: Annotated[int, typer.Option(min=1, help="Points of the very large profile.")] = 200,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Time the registry with 10 profiles and with many, and one very large profile."""
    notes = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        ratios = asyncio.run(_ratios(Path(folder), profiles, rounds, notes))
    large = _large_profile(groups, points)
    result = {
        **{f"{name}_ratio": ratio for name, ratio in ratios.items()},
        "large_profile": {"groups": groups, "points": points, **large},
        "profiles": profiles,
    }
    emit(result, as_json=as_json, out=out)
    if as_json:
        return
    table = Table("what", "value", title=f"{profiles:,} profiles compared with {FEW}")
    for name, ratio in ratios.items():
        table.add_row(f"time to {name}: ratio", f"{ratio:.2f}")
    for name, value in large.items():
        table.add_row(f"{groups:,} groups, {points} points: {name}", f"{value:,.4g}")
    Console().print(table)


def _small(i: int) -> ProfileContent:
    layout = Layout.of_names([f"blocks.{b}.weight" for b in range(4)])
    header = ProfileHeader(
        layout, 0.01, 100, provenance=_PROVENANCE, labels={"i": str(i), "half": str(i % 2)}
    )
    steps = np.arange(10, dtype=np.int64) * 10
    rates = np.full((10, 4), 1 + i, dtype=np.float32)
    return ProfileContent(header, steps, rates, np.zeros_like(rates))


def _name(i: int) -> ProfileName:
    return ProfileName("bench", f"p{i:07d}")


async def fill(store: ProfileStore, count: int, notes: Console) -> None:
    """Register small profiles, each with an alias.

    Args:
        store: Where to register them.
        count: Number of profiles.
        notes: Console for progress.
    """

    async def one(i: int) -> None:
        await store.register(_name(i), _small(i), AuditOrigin(_NOW))
        await store.set_alias(ProfileReference(_name(i)), "prod", AuditOrigin(_NOW))

    for start in range(0, count, _CONCURRENCY):
        await asyncio.gather(*(one(i) for i in range(start, min(start + _CONCURRENCY, count))))
        if start and start % 20_000 == 0:
            notes.print(f"{start:,} profiles stored", style="dim")


async def _ratios(folder: Path, profiles: int, rounds: int, notes: Console) -> dict[str, float]:
    """Return the ratio of median times, many profiles to few, from paired rounds."""
    with EmbeddedRedis(folder / "few") as few, EmbeddedRedis(folder / "many") as many:
        async with (
            connect(few.url, timeout_s=10, retries=0) as few_redis,
            connect(many.url, timeout_s=10, retries=0) as many_redis,
        ):
            stores = ProfileStore(few_redis), ProfileStore(many_redis)
            await fill(stores[0], FEW, notes)
            await fill(stores[1], profiles, notes)
            middles = _name(FEW // 2), _name(profiles // 2 + 1 - profiles // 2 % 2)
            ratios: dict[str, float] = {}
            for name, task in _TASKS.items():
                times: tuple[list[float], list[float]] = ([], [])
                for turn in range(rounds):
                    for which in (0, 1) if turn % 2 else (1, 0):
                        start = time.perf_counter()
                        await task(stores[which], middles[which])
                        times[which].append(time.perf_counter() - start)
                ratios[name] = statistics.median(times[1]) / statistics.median(times[0])
            return ratios


def _large_profile(groups: int, points: int) -> dict[str, float]:
    """Return the stored size of one large profile and the times of the service with it."""
    rng = np.random.default_rng(0)
    blocks = 50
    layout = Layout.of([
        Group(f"blocks.{i % blocks}.kind{i // blocks}.weight") for i in range(groups)
    ])
    header = ProfileHeader(layout, 0.01, points * 10, provenance=_PROVENANCE)
    # Like real profiles: rates spread over decades that fall during training, with 10% noise.
    decay = -np.linspace(0, 1, points)[:, None] * rng.uniform(0, 2, groups)
    noise = rng.normal(0, 0.1, (points, groups))
    rates = np.exp(rng.normal(-2, 2, groups) + decay + noise).astype(np.float32)
    errors = np.abs(rng.normal(0.1, 0.03, (points, groups))).astype(np.float32)
    content = ProfileContent(header, np.arange(points, dtype=np.int64) * 10, rates, errors)
    encoded = encode(content)
    message = content_to_proto(content)
    with LocalServer(None) as server, AdvisorClient(server.address, deadline_s=120) as client:
        start = time.perf_counter()
        client.register_profile("large", message)
        registered = time.perf_counter()
        client.check_layout(
            "large", message.layout
        )  # the service loads the profile for the first time
        resolved = time.perf_counter()
    return {
        "bytes": len(encoded.header) + len(encoded.arrays),
        "register_s": registered - start,
        "resolve_s": resolved - registered,
    }
