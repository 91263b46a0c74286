"""Waiting, with a time limit, for something that happens in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def eventually(poll: Callable[[], _T], *, within_s: float = 10.0) -> _T:
    """Call ``poll`` until its value is truthy, and return it; fail after ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while not (value := poll()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s; last seen: {value!r}")
        time.sleep(0.02)
    return value
