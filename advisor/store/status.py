"""Reads Redis's status: whether it is available and configured to lose nothing."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from advisor.errors import StoreUnavailableError
from advisor.store.redis.connection import awaited, check, store_errors

_FLUSHES = ("no", "everysec", "always")  # from weak to strong


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Redis's status; for a Cluster, the weakest value of all primaries.

    Attributes:
        problem: Why Redis does not answer; empty if it does.
        version: Redis's version; empty if unknown.
        append_only: Whether it keeps an append-only file; None if unknown.
        flush: When it flushes writes: ``always``, ``everysec`` or ``no``; empty if unknown.
        eviction: Its eviction policy when memory is full; empty if unknown.
        replicas: Number of replicas; 0 also if the version is unknown.
        clock_offset_s: Redis's clock minus the local clock, in seconds; NaN if unknown.
    """

    problem: str = ""
    version: str = ""
    append_only: bool | None = None
    flush: str = ""
    eviction: str = ""
    replicas: int = 0
    clock_offset_s: float = 0.0


async def read_status(redis: Redis) -> StoreStatus:
    """Return the status of Redis, or of all primaries of a Cluster.

    Values that Redis does not let the service read are unknown.

    Args:
        redis: The client.
    """
    everywhere = {"target_nodes": "primaries"} if hasattr(redis, "get_primaries") else {}
    infos: list[Any] = []
    offsets: list[float] = []
    settings: list[Any] = []
    try:
        await check(redis)
        with store_errors(), suppress(ResponseError):
            infos = _nodes(await awaited(redis.info(**everywhere)), everywhere)
        with store_errors(), suppress(ResponseError):
            before = time.time()
            clocks = _nodes(await awaited(redis.time(**everywhere)), everywhere)
            middle = (before + time.time()) / 2
            offsets = [seconds + micros / 1e6 - middle for seconds, micros in clocks]
    except StoreUnavailableError as error:
        return StoreStatus(problem=str(error))
    with suppress(ResponseError, StoreUnavailableError):  # an ACL, or a provider that hides CONFIG
        config_get: Any = redis.config_get
        with store_errors():  # one setting only: before 7.0, CONFIG GET accepts a single pattern
            settings = _nodes(await config_get("appendfsync", **everywhere), everywhere)
    flushes = [found["appendfsync"] for found in settings if "appendfsync" in found]
    evictions = {str(info.get("maxmemory_policy", "")) for info in infos}
    return StoreStatus(
        version=min((str(info.get("redis_version", "")) for info in infos), default=""),
        append_only=all(bool(info.get("aof_enabled")) for info in infos) if infos else None,
        flush=min(flushes, key=_FLUSHES.index, default="") if set(flushes) <= set(_FLUSHES) else "",
        eviction=next((found for found in sorted(evictions) if found != "noeviction"), "noeviction")
        if evictions
        else "",
        replicas=min((int(info.get("connected_slaves", 0)) for info in infos), default=0),
        clock_offset_s=max(offsets, key=abs, default=math.nan),
    )


def _nodes(answer: Any, everywhere: dict[str, str]) -> list[Any]:
    """Return one answer per node; a Cluster's answers are in a dict by node."""
    return list(answer.values()) if everywhere else [answer]
