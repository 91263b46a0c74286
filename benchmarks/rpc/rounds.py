"""Paired rounds: two servers measured alternately, so that noise of the machine affects both."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from benchmarks.rpc.load import Load, Round
from benchmarks.rpc.payload import PROJECT

_SETTLE_S = 0.2
_DRAIN_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A server compared with another one; medians over pairs of rounds.

    Attributes:
        throughput_ratio: Answers per second, relative to the other server.
        throughput_spread: Lowest and highest throughput ratio of a pair.
        p99_ratio: 99th percentile of the latency, relative to the other server.
        p99_spread: Lowest and highest p99 ratio of a pair.
        per_second: Answers per second.
        other_per_second: Answers per second of the other server.
        p99_ms: 99th percentile of the latency, in milliseconds.
    """

    throughput_ratio: float
    throughput_spread: tuple[float, float]
    p99_ratio: float
    p99_spread: tuple[float, float]
    per_second: float
    other_per_second: float
    p99_ms: float

    def figures(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "throughput_ratio": self.throughput_ratio,
            "throughput_spread": list(self.throughput_spread),
            "p99_ratio": self.p99_ratio,
            "p99_spread": list(self.p99_spread),
            "per_second": self.per_second,
            "echo_per_second": self.other_per_second,
            "p99_ms": self.p99_ms,
        }


async def compare(
    own: Load,
    other: Load,
    *,
    rounds: int,
    seconds: float,
    settle: Callable[[], Awaitable[None]] | None = None,
) -> Comparison:
    """Measure two servers alternately: own, other, other, own, and so on.

    Args:
        own: Callers of the first server.
        other: As many callers of the other server.
        rounds: Pairs of rounds.
        seconds: Duration of a round.
        settle: Waits until the work that a round left behind is done.
    """
    pairs: list[tuple[Round, Round]] = []
    for load in (own, other):
        await load.run(seconds / 2)  # warm-up
    for turn in range(rounds):
        done: dict[bool, Round] = {}
        for is_own in (True, False) if turn % 2 == 0 else (False, True):
            done[is_own] = await (own if is_own else other).run(seconds)
            await (settle() if settle is not None else asyncio.sleep(_SETTLE_S))
        pairs.append((done[True], done[False]))
    speeds = [one.per_second / two.per_second for one, two in pairs]
    latencies = [one.p99_s / two.p99_s for one, two in pairs]
    return Comparison(
        throughput_ratio=statistics.median(speeds),
        throughput_spread=(min(speeds), max(speeds)),
        p99_ratio=statistics.median(latencies),
        p99_spread=(min(latencies), max(latencies)),
        per_second=statistics.median(one.per_second for one, _ in pairs),
        other_per_second=statistics.median(two.per_second for _, two in pairs),
        p99_ms=statistics.median(one.p99_s for one, _ in pairs) * 1000,
    )


async def wait_until_stored(redis: Redis, load: Load) -> int:
    """Wait until the telemetry of a load is stored, and return the number of stored measurements.

    Args:
        redis: The service's Redis.
        load: Callers whose runs have names.
    """
    keys = [f"fslr:{{{PROJECT}}}:run:{name}" for name in load.names]
    deadline = asyncio.get_running_loop().time() + _DRAIN_TIMEOUT_S
    while True:
        async with redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hget(key, "measurements")
            count = sum(int(found or 0) for found in await pipeline.execute())
        if count >= load.sent or asyncio.get_running_loop().time() > deadline:
            return count
        await asyncio.sleep(0.02)
