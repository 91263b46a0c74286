"""The measurement batch: the arguments of a model call, which can be cut by examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.model.structure import map_tensors, tensors_in

_INDEX_TYPES = {torch.int32, torch.int64}


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


class EmptyBatchError(MeasurementError):
    """A batch has no examples."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one call of the model, with the examples along one dimension.

    Attributes:
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        examples: Number of examples B.
        autocasts: The states of autocast during the call, one per type of device.
        dim: The dimension of tensor arguments that counts the examples, >= 0.
        is_guess: Whether the number of examples is only the size of the first tensor, so that the
            output may know better.
        whole_examples: Number of examples of the batch that this one is the front of; 0: it is
            whole.
        is_written_to: Whether the model writes to the arguments, so that it must get copies: they
            are the training's own.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    examples: int
    autocasts: tuple[AutocastState, ...] = ()
    dim: int = 0
    is_guess: bool = False
    whole_examples: int = 0
    is_written_to: bool = False

    @classmethod
    def from_call(
        cls,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[AutocastState, ...] = (),
        *,
        dim: int = 0,
    ) -> Batch:
        """Return the batch of a model call, with the size of the first tensor as B.

        Without a tensor of enough dimensions, B is 1 until the output shows more.

        Args:
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
            autocasts: The states of autocast during the call.
            dim: The dimension of tensor arguments that counts the examples, >= 0.
        """
        sizes = (t.shape[dim] for t in tensors_in((args, kwargs)) if t.dim() > dim)
        return cls(args, kwargs, next(sizes, 1), autocasts, dim, is_guess=True)

    def tensors(self) -> list[Tensor]:
        """Return all tensor arguments, in order."""
        return tensors_in((self.args, self.kwargs))

    def front(self, size: int) -> Batch:
        """Return the first examples as a batch that knows of the others.

        Args:
            size: Number of examples, at most those of this batch.
        """
        return replace(self.select(0, size), whole_examples=self.examples)

    @property
    def part(self) -> float:
        """How much of the whole batch this one is, in (0, 1]."""
        return self.examples / self.whole_examples if self.whole_examples else 1.0

    def flattened_sizes(self) -> set[int]:
        """Return the sizes of leading dimensions that merge examples and their rows: B * T."""
        found: set[int] = set()
        for tensor in self.tensors():
            dim = self._dim_of(tensor)
            if dim is not None and tensor.dim() > 1:
                found.add(self.examples * tensor.shape[1 if dim == 0 else 0])
        return found - {self.examples}

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
        """Return the examples from ``start`` up to, but not including, ``stop`` as a batch.

        Tensors without a dimension that counts the examples stay whole, so the part is only right
        if the model gives the same outputs for it as for the whole batch.
        """

        def cut(tensor: Tensor) -> Tensor:
            dim = self._dim_of(tensor)
            try:
                return tensor if dim is None else tensor.narrow(dim, start, stop - start)
            except RuntimeError:  # nested and sparse tensors have no such parts
                return tensor

        return replace(
            self,
            args=map_tensors(self.args, cut),
            kwargs=map_tensors(self.kwargs, cut),
            examples=stop - start,
        )

    def may_be_tried_in_parts_of(self, size: int) -> bool:
        """Return whether the model may be called on a part, to see whether it accepts one.

        A tensor that stays whole may hold indices of what is cut (the edges of a graph, the offsets
        of packed sequences). The CPU refuses an index out of range. An accelerator may stop working
        for the whole process, so there no such index may be beyond the part.

        Args:
            size: Number of examples in the part.
        """
        return not any(
            tensor.device.type != "cpu"
            and not (
                tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
            )
            and self._dim_of(tensor) is None
            and tensor.numel() > 0
            and int(tensor.max()) >= size
            for tensor in self.tensors()
        )

    def chunks(self, count: int) -> list[Batch]:
        """Return the batch in ``min(count, examples)`` chunks of nearly equal size.

        Raises:
            EmptyBatchError: It has no examples.
        """
        if self.examples < 1:
            raise EmptyBatchError("the batch has no examples, so there is nothing to measure")
        pieces = min(count, self.examples)
        edges = [round(self.examples * i / pieces) for i in range(pieces + 1)]
        return [self.select(start, stop) for start, stop in pairwise(edges)]

    def _dim_of(self, tensor: Tensor) -> int | None:
        """Return the dimension of a tensor that counts the examples, or None.

        Models whose inputs have the time first often have masks with the examples first.
        """
        for dim in (self.dim, 0):
            if tensor.dim() > dim and tensor.shape[dim] == self.examples:
                return dim
        return None
