"""The measurement batch: the arguments of one model call, cut along the example dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
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
class Autocast:
    """The state of autocast for one type of device.

    Attributes:
        device_type: Such as ``cuda``.
        enabled: Whether functions cast by themselves.
        dtype: To which type.
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def present(cls, device_type: str) -> Autocast:
        """Return the state that is in force."""
        return cls(
            device_type,
            torch.is_autocast_enabled(device_type),
            torch.get_autocast_dtype(device_type),
        )

    def again(self) -> torch.autocast:
        """Return a context in which the state is in force again, its cache left alone."""
        # Casts of swapped weights must not be found by anyone who still has the cache open.
        return torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one call of the model, ``examples`` examples along the leading dimension.

    Attributes:
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        examples: Number of examples B: the leading dimension of the first tensor argument.
        autocasts: States of autocast that the call was made under.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    examples: int
    autocasts: tuple[Autocast, ...] = ()

    @classmethod
    def of_call(
        cls,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[Autocast, ...] = (),
    ) -> Batch:
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
        return cls(args, kwargs, first.shape[0], autocasts)

    def tensors(self) -> list[Tensor]:
        """Return all tensor arguments, in order."""
        return _tensors((self.args, self.kwargs))

    def flattened_sizes(self) -> set[int]:
        """Return the sizes that a leading dimension has which counts all rows of all examples."""
        return {
            self.examples * tensor.shape[1]
            for tensor in self.tensors()
            if tensor.dim() > 1 and tensor.shape[0] == self.examples and tensor.shape[1] > 1
        }

    def pattern(self) -> tuple[object, ...]:
        """Return which dimensions of the arguments count the examples, all other sizes left out.

        Batches of one pattern are measured alike: sequences of other lengths change nothing about
        which row belongs to which example.
        """
        autocast = tuple(state for state in self.autocasts if state.enabled)
        shapes = tuple(
            tuple(size == self.examples for size in tensor.shape) for tensor in self.tensors()
        )
        return self.examples == 1, shapes, autocast

    def select(self, start: int, stop: int) -> Batch:
        """Return the examples ``start`` (included) to ``stop`` (excluded) as a batch."""

        def cut(tensor: Tensor) -> Tensor:
            has_examples = tensor.dim() > 0 and tensor.shape[0] == self.examples
            return tensor[start:stop] if has_examples else tensor

        return Batch(
            _map_tensors(self.args, cut),
            _map_tensors(self.kwargs, cut),
            stop - start,
            self.autocasts,
        )

    def chunks(self, count: int) -> list[Batch]:
        """Return the batch cut into ``min(count, examples)`` chunks of nearly equal size."""
        pieces = min(count, self.examples)
        edges = [round(self.examples * i / pieces) for i in range(pieces + 1)]
        return [self.select(start, stop) for start, stop in pairwise(edges)]
