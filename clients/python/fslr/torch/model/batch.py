"""The measurement batch: the arguments of a model call, which can be cut by examples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.model.structure import map_tensors, tensors_in


@dataclass(frozen=True, slots=True)
class AutocastState:
    """The state of autocast for one type of device.

    Attributes:
        device_type: The type of device, such as ``cuda``.
        enabled: Whether autocast is enabled.
        dtype: The type that autocast casts to.
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, device_type: str) -> AutocastState:
        """Return the current state."""
        return cls(
            device_type,
            torch.is_autocast_enabled(device_type),
            torch.get_autocast_dtype(device_type),
        )

    def restored(self) -> torch.autocast:
        """Return a context in which the state is in force again, without its cache of casts."""
        # The training may have the cache open, and must not find casts of swapped weights in it.
        return torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one call of the model, with the examples along the leading dimension.

    Attributes:
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        examples: Number of examples B: the size of the first tensor argument's leading dimension.
        autocasts: The states of autocast during the call, one per type of device.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    examples: int
    autocasts: tuple[AutocastState, ...] = ()

    @classmethod
    def from_call(
        cls,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[AutocastState, ...] = (),
    ) -> Batch:
        """Return the batch of a model call.

        Raises:
            MeasurementError: No argument is a tensor with at least one dimension.
        """
        first = next((t for t in tensors_in((args, kwargs)) if t.dim() > 0), None)
        if first is None:
            raise MeasurementError(
                "the model was called without a tensor argument, so the number of examples is not "
                "known; pass the inputs as tensors whose leading dimension is the batch"
            )
        return cls(args, kwargs, first.shape[0], autocasts)

    def tensors(self) -> list[Tensor]:
        """Return all tensor arguments, in order."""
        return tensors_in((self.args, self.kwargs))

    def flattened_sizes(self) -> set[int]:
        """Return the sizes of leading dimensions that merge examples and their rows: B * T."""
        return {
            self.examples * tensor.shape[1]
            for tensor in self.tensors()
            if tensor.dim() > 1 and tensor.shape[0] == self.examples and tensor.shape[1] > 1
        }

    def pattern(self) -> tuple[object, ...]:
        """Return a key that batches share if they can be measured in the same way.

        It contains which dimensions of the arguments count the examples, but no other sizes: the
        length of a sequence does not change which row belongs to which example.
        """
        autocasts = tuple(state for state in self.autocasts if state.enabled)
        shapes = tuple(
            tuple(size == self.examples for size in tensor.shape) for tensor in self.tensors()
        )
        return self.examples == 1, shapes, autocasts

    def select(self, start: int, stop: int) -> Batch:
        """Return the examples from ``start`` up to, but not including, ``stop`` as a batch."""

        def cut(tensor: Tensor) -> Tensor:
            has_examples = tensor.dim() > 0 and tensor.shape[0] == self.examples
            return tensor[start:stop] if has_examples else tensor

        return Batch(
            map_tensors(self.args, cut),
            map_tensors(self.kwargs, cut),
            stop - start,
            self.autocasts,
        )

    def chunks(self, count: int) -> list[Batch]:
        """Return the batch in ``min(count, examples)`` chunks of nearly equal size."""
        pieces = min(count, self.examples)
        edges = [round(self.examples * i / pieces) for i in range(pieces + 1)]
        return [self.select(start, stop) for start, stop in pairwise(edges)]
