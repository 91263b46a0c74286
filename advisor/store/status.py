"""What Redis says of itself: enough to see whether it is set up to lose nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from advisor.errors import StoreUnavailableError
from advisor.store.connection import awaited, store_errors

_FLUSHES = ("no", "everysec", "always")  # the weakest first
_ASKED = ("appendfsync", "maxmemory-policy")


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What Redis says; of a cluster, the weakest node's.

    Attributes:
        problem: Why it does not answer; empty: it does.
        version: Its version.
        append_only: Whether it keeps an append-only file; None: it does not tell.
        flush: ``always``, ``everysec`` or ``no``; empty: it does not tell.
        eviction: What it does when memory is full; empty: it does not tell.
        replicas: Replicas that follow it.
        clock_offset_s: Its clock less ours, in seconds.
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
    try:
        with store_errors():
            infos = _nodes(await awaited(redis.info(**everywhere)), everywhere)
            before = time.time()
            clocks = _nodes(await awaited(redis.time(**everywhere)), everywhere)
            middle = (before + time.time()) / 2
    except StoreUnavailableError as error:
        return StoreStatus(problem=str(error))
    except NoPermissionError as error:
        return StoreStatus(problem=f"it does not let us ask: {error}")
    try:
        asked: Any = redis.config_get
        with store_errors():
            settings = _nodes(await asked(*_ASKED, **everywhere), everywhere)
    except (ResponseError, StoreUnavailableError):  # an ACL, or a service that hides CONFIG
        settings = []
    offsets = [seconds + micros / 1e6 - middle for seconds, micros in clocks]
    flushes = [found["appendfsync"] for found in settings if "appendfsync" in found]
    evictions = {str(info.get("maxmemory_policy", "")) for info in infos}
    return StoreStatus(
        version=min(str(info.get("redis_version", "")) for info in infos),
        append_only=all(bool(info.get("aof_enabled")) for info in infos),
        flush=min(flushes, key=_FLUSHES.index, default="") if set(flushes) <= set(_FLUSHES) else "",
        eviction=next((found for found in sorted(evictions) if found != "noeviction"), "noeviction")
        if evictions
        else "",
        replicas=min(int(info.get("connected_slaves", 0)) for info in infos),
        clock_offset_s=max(offsets, key=abs),
    )


def _nodes(answer: Any, everywhere: dict[str, str]) -> list[Any]:
    """Return the answers of all nodes: a cluster's come by node, another's is its own."""
    return list(answer.values()) if everywhere else [answer]
