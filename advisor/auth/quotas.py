"""How much one caller may use of a process: open streams, and messages a second."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import LRUCache

from advisor.auth.roles import Grant
from advisor.errors import QuotaExceededError

_BURST_S = 2.0  # of messages that may come at once
_KEPT_CALLERS = 10_000


@dataclass(slots=True)
class _Bucket:
    """Messages that may still come; it fills up with time."""

    left: float
    filled: float


class Quotas:
    """Bounds what one token, or one certificate's name, uses of this process.

    Args:
        max_streams: Most open streams of one caller.
        max_messages_per_s: Most messages a second of one caller, with a burst of 2 seconds' worth.
    """

    def __init__(self, *, max_streams: int, max_messages_per_s: float) -> None:
        self._max_streams = max_streams
        self._per_s = max_messages_per_s
        self._streams: Counter[Grant] = Counter()
        self._buckets: LRUCache[Grant, _Bucket] = LRUCache(_KEPT_CALLERS)

    @contextmanager
    def stream(self, caller: Grant) -> Iterator[None]:
        """Count a stream as long as the context lasts.

        Args:
            caller: Whose it is.

        Yields:
            Nothing.

        Raises:
            QuotaExceededError: The caller has as many as it may.
        """
        if self._streams[caller] >= self._max_streams:
            raise QuotaExceededError(
                str(caller),
                f"has {self._max_streams} open streams here, as many as it may",
                "max_token_streams",
            )
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    def message(self, caller: Grant) -> None:
        """Count a message.

        Args:
            caller: Whose it is.

        Raises:
            QuotaExceededError: The caller sent as many as it may.
        """
        now = time.monotonic()
        most = max(self._per_s * _BURST_S, 1.0)
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(most, now)
        bucket.left = min(most, bucket.left + (now - bucket.filled) * self._per_s)
        bucket.filled = now
        if bucket.left < 1:
            raise QuotaExceededError(
                str(caller),
                f"sent {self._per_s:g} messages a second, as many as it may",
                "max_token_messages_per_s",
                retry_s=(1 - bucket.left) / self._per_s,
            )
        bucket.left -= 1
