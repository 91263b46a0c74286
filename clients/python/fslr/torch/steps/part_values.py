"""A part of a group that says at once what a step function writes into it.

No hook runs after a step that ends with an exception. So what the step wrote by then has to be in
the optimizer's groups already, for schedulers and for whoever reads them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch


class PartValues(dict[str, Any]):
    """The entries of a part of a group.

    Attributes:
        on_write: Called with the name of each entry that is written; None: nothing is.
    """

    __slots__ = ("on_write",)

    def __init__(self) -> None:
        super().__init__()
        self.on_write: Callable[[str], None] | None = None

    def __setitem__(self, key: str, value: Any) -> None:
        """Write an entry, and say so."""
        super().__setitem__(key, value)
        if self.on_write is not None:
            self.on_write(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an entry, which is written if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Write several entries."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        """Let copies and pickles be plain dicts."""
        return dict, (dict(self),)


def writes_into_groups(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a step function may write into groups; those of PyTorch do not.

    Args:
        optimizer: The optimizer.
    """
    return not inspect.unwrap(type(optimizer).step).__module__.startswith("torch.optim.")


def fill(values: dict[str, Any], entries: dict[str, Any]) -> None:
    """Let a part have these entries, which are not written by a step.

    Args:
        values: The part.
        entries: Its entries.
    """
    if isinstance(values, PartValues):
        values.on_write = None
    values.clear()
    values.update(entries)
