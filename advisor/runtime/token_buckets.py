"""Token buckets: how often each of many callers may do something."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import LRUCache

_Caller = TypeVar("_Caller", bound=Hashable)
_MAX_CALLERS = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    refilled: float  # monotonic clock, seconds


class TokenBuckets(Generic[_Caller]):
    """A bucket of tokens for each caller, which refills over time.

    The callers that were seen last are remembered; a forgotten one starts with a full bucket.

    Args:
        per_s: Tokens that a bucket gains per second, above 0.
        burst_s: The seconds whose tokens a bucket holds; it holds at least one token.
    """

    def __init__(self, per_s: float, *, burst_s: float) -> None:
        self._per_s = per_s
        self._capacity = max(per_s * burst_s, 1.0)
        self._buckets: LRUCache[_Caller, _Bucket] = LRUCache(_MAX_CALLERS)

    def take(self, caller: _Caller, tokens: float = 1.0) -> float:
        """Take tokens from a caller's bucket if it has enough.

        Args:
            caller: The caller.
            tokens: The number of tokens; at most a full bucket is taken.

        Returns:
            0 if they were taken; else the seconds until the bucket has them.
        """
        now = time.monotonic()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(self._capacity, now)
        bucket.left = min(self._capacity, bucket.left + (now - bucket.refilled) * self._per_s)
        bucket.refilled = now
        tokens = min(tokens, self._capacity)
        if bucket.left < tokens:
            return (tokens - bucket.left) / self._per_s
        bucket.left -= tokens
        return 0.0
