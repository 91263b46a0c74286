"""What Redis says of itself: enough to see whether it is set up to lose nothing."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from advisor.errors import StoreUnavailableError
from advisor.store.redis.connection import awaited, store_errors

_FLUSHES = ("no", "everysec", "always")  # the weakest first


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What Redis says; of a cluster, the weakest node's.

    Attributes:
        problem: Why it does not answer; empty: it does.
        version: Its version; empty: it does not tell.
        append_only: Whether it keeps an append-only file; None: it does not tell.
        flush: ``always``, ``everysec`` or ``no``; empty: it does not tell.
        eviction: What it does when memory is full; empty: it does not tell.
        replicas: Replicas that follow it; 0 too where it tells no version.
        clock_offset_s: Its clock less ours, in seconds; NaN: it does not tell.
    """

    problem: str = ""
    version: str = ""
    append_only: bool | None = None
    flush: str = ""
    eviction: str = ""
    replicas: int = 0
    clock_offset_s: float = 0.0


async def read_status(redis: Redis) -> StoreStatus:
    """Ask Redis, every primary of a cluster.

    What an ACL does not let us ask is left out.

    Args:
        redis: The client.
    """
    everywhere = {"target_nodes": "primaries"} if hasattr(redis, "get_primaries") else {}
    infos: list[Any] = []
    offsets: list[float] = []
    settings: list[Any] = []
    try:
        with store_errors(), suppress(NoPermissionError):
            infos = _nodes(await awaited(redis.info(**everywhere)), everywhere)
        with store_errors(), suppress(NoPermissionError):
            before = time.time()
            clocks = _nodes(await awaited(redis.time(**everywhere)), everywhere)
            middle = (before + time.time()) / 2
            offsets = [seconds + micros / 1e6 - middle for seconds, micros in clocks]
    except StoreUnavailableError as error:
        return StoreStatus(problem=str(error))
    with suppress(ResponseError, StoreUnavailableError):  # an ACL, or a service that hides CONFIG
        asked: Any = redis.config_get
        with store_errors():  # one setting: more at once are understood from 7.0 on
            settings = _nodes(await asked("appendfsync", **everywhere), everywhere)
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
    """Return the answers of all nodes: a cluster's come by node, another's is its own."""
    return list(answer.values()) if everywhere else [answer]
