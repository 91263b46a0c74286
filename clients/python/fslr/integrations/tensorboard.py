"""Writes an attached or recorded training to TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any, Protocol

from fslr.integrations.requirements import required
from fslr.integrations.scalars import Scalars
from fslr.training.events import Event


class ScalarWriter(Protocol):
    """A writer such as ``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, value: Any, step: Any, /) -> object:
        """Write a number."""
        ...


class TensorBoardListener:
    """Writes scalars to TensorBoard; pass it as ``listeners=[TensorBoardListener("runs/1")]``.

    Args:
        writer: The writer that your loop uses, which you close yourself; or a folder, which gets a
            file of its own.
        groups: Patterns of the groups whose own numbers are written; see :class:`.Scalars`.
        prefix: What all names begin with.

    Raises:
        ImportError: A folder is given, and TensorBoard is not installed or too old.
    """

    def __init__(
        self,
        writer: ScalarWriter | str | PathLike[str],
        *,
        groups: Sequence[str] = ("*",),
        prefix: str = "fslr/",
    ) -> None:
        self._own: Any = None
        if isinstance(writer, str | PathLike):
            with required("tensorboard", "2.14", extra="tensorboard"):
                from tensorboard.summary import Writer  # noqa: PLC0415 - loaded only if used
            self._own = Writer(fspath(writer))
            self._writer: ScalarWriter = self._own
        else:
            self._writer = writer
        self._scalars = Scalars(groups, prefix)

    def __call__(self, event: Event, /) -> None:
        """Write the numbers of an event."""
        for name, value in self._scalars.of(event).items():
            self._writer.add_scalar(name, value, event.step)

    def close(self) -> None:
        """Write what is buffered, and close the file of a folder that was given."""
        if self._own is not None:
            self._own.close()
            self._own = None
