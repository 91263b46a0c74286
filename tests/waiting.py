"""Waiting, with a time limit, for something that happens in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from fslr import RunNotFoundError

_T = TypeVar("_T")


def eventually(poll: Callable[[], _T], *, within_s: float = 10.0) -> _T:
    """Call ``poll`` until its value is truthy, and return it; fail after ``within_s`` seconds.

    A run that is not found yet counts as a false value: runs are stored in the background.
    """
    deadline = time.monotonic() + within_s
    while True:
        last: object
        try:
            if value := poll():
                return value
            last = value
        except RunNotFoundError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s; last seen: {last!r}")
        time.sleep(0.02)
