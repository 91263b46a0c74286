"""Quotas: how many streams and messages per second each caller may use in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from advisor.auth.roles import Grant
from advisor.errors import QuotaExceededError
from advisor.runtime.token_buckets import TokenBuckets

_BURST_S = 2.0  # the messages of this many seconds may arrive at once


class Quotas:
    """Limits how much each caller (a token or a certificate name) uses of this process.

    Args:
        max_streams: Maximum number of open streams per caller.
        max_messages_per_s: Maximum messages per second and caller; bursts may have twice as many.
    """

    def __init__(self, *, max_streams: int, max_messages_per_s: float) -> None:
        self._max_streams = max_streams
        self._per_s = max_messages_per_s
        self._streams: Counter[Grant] = Counter()
        self._messages: TokenBuckets[Grant] = TokenBuckets(max_messages_per_s, burst_s=_BURST_S)

    @contextmanager
    def stream(self, caller: Grant) -> Iterator[None]:
        """Count a stream of a caller while the context lasts.

        Args:
            caller: The caller.

        Yields:
            Nothing.

        Raises:
            QuotaExceededError: The caller has the maximum number of open streams.
        """
        if self._streams[caller] >= self._max_streams:
            raise QuotaExceededError(
                str(caller),
                f"has {self._max_streams} open streams here, which is the maximum",
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
        """Count a message of a caller.

        Args:
            caller: The caller.

        Raises:
            QuotaExceededError: The caller sends more messages per second than allowed.
        """
        retry_s = self._messages.take(caller)
        if retry_s:
            raise QuotaExceededError(
                str(caller),
                f"sends more than {self._per_s:g} messages per second, which is the maximum",
                "max_token_messages_per_s",
                retry_s=retry_s,
            )
