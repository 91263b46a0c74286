"""Notices training calls in compiled code without anything in the graph.

A counter there would compile the model again for each number, and a callback would break the graph.
But compiled code keeps the arguments of the latest call, in an object. That is released when the
next call takes its place, and then it says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fslr.torch.model.batch import AutocastState


class Releases:
    """What is done when a call in compiled code takes the place of the one before.

    Attributes:
        action: It; must not raise, and must not be compiled.
    """

    def __init__(self) -> None:
        self.action: Callable[[], object] | None = None


class CompiledCall:
    """A call in compiled code.

    Args:
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        autocasts: The states of autocast during the call, one per type of device.
        releases: What is done once it is released.
    """

    releases: Releases | None = None  # compilers make objects without calling the constructor

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[AutocastState, ...],
        releases: Releases,
    ) -> None:
        self.args, self.kwargs, self.autocasts = args, kwargs, autocasts
        self.releases = releases

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Say that it is released, except at the end of the process."""
        releases = self.releases
        if releases is not None and releases.action is not None and not is_finalizing():
            releases.action()
