"""Work that would hold up the event loop, and with it every other call, goes to a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_LARGE = 500  # a layout of fewer names is mapped in less time than a thread is worth


async def computed(
    names: int,
    function: Callable[_Arguments, _Result],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> _Result:
    """Return what a function returns, from a thread if the layout is large.

    Args:
        names: Number of names of the layouts that it works on, frozen ones too.
        function: What to compute; it shares nothing that others change.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """
    if names < _LARGE:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
