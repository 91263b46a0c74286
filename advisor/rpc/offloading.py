"""Runs work that would block the event loop, and so every other call, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from advisor.advising.resolved_profile import LoadedProfile
from advisor.policy import Policy

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


async def smooth_reference(loaded: LoadedProfile, policy: Policy) -> None:
    """Smooth a profile's reference in a thread if a policy asks for it.

    It can take a second, and is kept for the runs that follow.

    Args:
        loaded: The profile.
        policy: The rules of a run.
    """
    if policy.reference_smoothing:
        await asyncio.to_thread(loaded.smoothed, policy.reference_smoothing)
