"""The measurement batch: the arguments of one model call, cut along the example dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from fslr.errors import MeasurementError


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``function`` to every tensor of nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map_tensors(item, function) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_map_tensors(item, function) for item in value)
    if isinstance(value, dict):
        return {key: _map_tensors(item, function) for key, item in value.items()}
    return value


def _tensors(value: Any) -> list[Tensor]:
    """Return every tensor of nested tuples, lists and dicts, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _map_tensors(value, note)
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one call of the model, ``examples`` examples along the leading dimension.

    Attributes:
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        examples: Number of examples B: the leading dimension of the first tensor argument.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    examples: int

    @classmethod
    def of_call(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch:
        """Return the batch of a model call.

        Raises:
            MeasurementError: No argument is a tensor with at least one dimension.
        """
        first = next((t for t in _tensors((args, kwargs)) if t.dim() > 0), None)
        if first is None:
            raise MeasurementError(
                "the model was called without a tensor argument, so its examples cannot be told "
                "apart; pass the inputs as tensors whose leading dimension is the batch"
            )
        return cls(args, kwargs, first.shape[0])

    def shapes(self) -> tuple[object, ...]:
        """Return the shapes of all tensor arguments, in order: what decides how a call runs."""
        return tuple(tuple(tensor.shape) for tensor in _tensors((self.args, self.kwargs)))

    def select(self, start: int, stop: int) -> Batch:
        """Return the examples ``start`` (included) to ``stop`` (excluded) as a batch."""

        def cut(tensor: Tensor) -> Tensor:
            has_examples = tensor.dim() > 0 and tensor.shape[0] == self.examples
            return tensor[start:stop] if has_examples else tensor

        return Batch(_map_tensors(self.args, cut), _map_tensors(self.kwargs, cut), stop - start)

    def chunks(self, count: int) -> list[Batch]:
        """Return the batch cut into ``min(count, examples)`` chunks of nearly equal size."""
        pieces = min(count, self.examples)
        edges = [round(self.examples * i / pieces) for i in range(pieces + 1)]
        return [self.select(start, stop) for start, stop in pairwise(edges)]
