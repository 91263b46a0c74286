"""Whether a batch may be cut: whether a part of it gives the same outputs on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.estimators.per_example.precision import forward_roundoff
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward
from fslr.torch.model.function_modes import WithoutDropout

_CUT = 1e-3  # relative to the largest output; different kernels for shapes stay below
_CUT_ROUNDOFFS = 12.0

REFUSALS = (
    *(RuntimeError, ValueError, IndexError, KeyError, TypeError, ArithmeticError, AssertionError),
    MeasurementError,
)
"""Exceptions of a model that does not accept a batch of some size."""


class CutCheck:
    """Compares a model's outputs for a part of a batch with those for the whole batch.

    Dropout is disabled meanwhile. A model that draws random numbers elsewhere gives different
    outputs each time, so its batches are not cut.

    Args:
        forward: Calls the model.
        batch: The whole batch.
    """

    def __init__(self, forward: Forward, batch: Batch) -> None:
        self._forward = forward
        self._batch = batch
        self._whole: Tensor | None = None

    @property
    def accepts_whole(self) -> bool:
        """Whether the model accepts the whole batch, and its output has as many examples."""
        if self._whole is None:
            self._whole = self._outputs(self._batch)
        return self._whole is not None

    def passes(self, start: int, stop: int) -> bool:
        """Return whether the outputs for a part equal those for the whole batch.

        Args:
            start: The first example of the part.
            stop: The first example after the part.

        Raises:
            OutOfMemoryError: The whole batch does not fit into memory.
        """
        if not (self._batch.may_be_tried_in_parts_of(stop - start) and self.accepts_whole):
            return False
        part = self._outputs(self._batch.select(start, stop))
        if self._whole is None or part is None or part.shape[1:] != self._whole.shape[1:]:
            return False
        whole = self._whole[start:stop]
        tensors = [self._whole, *self._forward.model.parameters()]
        tolerance = max(_CUT, _CUT_ROUNDOFFS * forward_roundoff(self._batch, tensors))
        largest = self._whole.abs().masked_fill(~self._whole.isfinite(), 0.0).max()
        difference = (part - whole).abs().masked_fill(part == whole, 0.0).max()  # inf - inf is NaN
        return bool(difference <= tolerance * largest)

    @torch.no_grad()
    def _outputs(self, batch: Batch) -> Tensor | None:
        """Return the outputs, or None if the model does not accept the batch.

        Batch norm refuses a single example, for instance.

        Raises:
            OutOfMemoryError: The batch does not fit into memory.
        """
        try:
            with WithoutDropout():
                outputs = self._forward.without_graph(batch)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS:
            return None
        return outputs if outputs.is_complex() else outputs.float()
