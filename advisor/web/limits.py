"""Limits of the page: requests per second of one viewer, and open live connections."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from advisor.policy.counts import count_of
from advisor.runtime.token_buckets import TokenBuckets

_FULL_RETRY_S = 5.0
_BURST_S = 5.0  # opening a page takes a dozen requests at once


class LimitExceededError(Exception):
    """A viewer sends too many requests, or too many live pages are open.

    Args:
        message: What is exceeded.
        retry_s: When to try again, in seconds.
    """

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Limits:
    """Counts requests and live connections of one process.

    Args:
        max_requests_per_s: Maximum requests per second of one viewer; bursts may have five times
            as many.
        max_live_pages: Maximum number of open live connections.
    """

    def __init__(self, *, max_requests_per_s: float, max_live_pages: int) -> None:
        self._per_s = max_requests_per_s
        self._max_live_pages = max_live_pages
        self._requests: TokenBuckets[str] = TokenBuckets(max_requests_per_s, burst_s=_BURST_S)
        self._live: Counter[str] = Counter()

    def request(self, viewer: str, *, cost: float = 1.0) -> None:
        """Count a request.

        Args:
            viewer: Identifies the viewer, such as a digest of the token or an address.
            cost: How many requests it counts as.

        Raises:
            LimitExceededError: The viewer sends too many.
        """
        retry_s = self._requests.take(viewer, cost)
        if retry_s:
            raise LimitExceededError(
                f"more than {self._per_s:g} {'request' if self._per_s == 1 else 'requests'} per "
                "second, which is the maximum "
                "(http_max_requests_per_s); wait a moment",
                retry_s,
            )

    def check_live_pages(self, viewer: str) -> None:
        """Raise an error if a viewer may not open another live page.

        Args:
            viewer: Identifies the viewer.

        Raises:
            LimitExceededError: The maximum number of pages is open, or this viewer has half of it.
        """
        total = self._live.total()
        own = self._live[viewer]
        if total >= self._max_live_pages or own >= math.ceil(self._max_live_pages / 2):
            raise LimitExceededError(
                f"{count_of(total, 'live page')} {'is' if total == 1 else 'are'} open; "
                f"{self._max_live_pages} is the maximum (http_max_live_pages), and half of it for "
                "one viewer; close some",
                _FULL_RETRY_S,
            )

    @contextmanager
    def live_page(self, viewer: str) -> Iterator[None]:
        """Count a live page while the context lasts."""
        self._live[viewer] += 1
        try:
            yield
        finally:
            self._live[viewer] -= 1
            if not self._live[viewer]:
                del self._live[viewer]
