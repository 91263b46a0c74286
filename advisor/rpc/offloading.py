"""Runs work that would block the event loop, and so every other call, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_MIN_THREAD_NAMES = 500  # mapping a smaller layout takes less time than starting a thread


async def compute(
    names: int,
    function: Callable[_Arguments, _Result],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> _Result:
    """Return the result of a function, computed in a thread if the layouts are large.

    Args:
        names: Number of names in the function's layouts, including frozen names.
        function: The function; it must not share mutable state.
        *args: Positional arguments of the function.
        **kwargs: Keyword arguments of the function.
    """
    if names < _MIN_THREAD_NAMES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
