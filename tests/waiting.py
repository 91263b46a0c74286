"""Waiting for what happens in the background, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def eventually(look: Callable[[], _T], *, within_s: float = 10.0) -> _T:
    """Return the first truthy value of ``look``; fail if there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s; last seen: {value!r}")
        time.sleep(0.02)
    return value
