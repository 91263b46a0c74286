"""Whether a batch may be cut: whether a part of it gives the same outputs on its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.estimators.per_example.precision import forward_roundoff
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward
from fslr.torch.model.function_modes import WithoutDropout
from fslr.torch.model.isolation import SideEffects

_CUT = 1e-3  # relative to the largest output; different kernels for shapes stay below
_CUT_ROUNDOFFS = 12.0

REFUSALS = (
    *(RuntimeError, ValueError, IndexError, KeyError, TypeError, ArithmeticError, AssertionError),
    MeasurementError,
)
"""Exceptions of a model that does not accept a batch of some size."""


def mixes_examples(model: nn.Module) -> bool:
    """Return whether a module surely mixes the examples of a batch: batch norm in training.

    Args:
        model: The model.
    """
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - of 1, 2, 3 dimensions
        and (module.training or not module.track_running_stats)
        for module in model.modules()
    )


class CutRefusedError(MeasurementError):
    """A part of a batch does not give the same outputs as within the whole batch."""


class CutCheck:
    """Compares a model's outputs for a part of a batch with those for the whole batch.

    Dropout is disabled meanwhile. A model that draws random numbers elsewhere gives different
    outputs each time, so its batches are not cut.

    Args:
        forward: Calls the model.
        batch: The whole batch.
        whole: The outputs for it, if they are known; they do not depend on random numbers.
    """

    def __init__(self, forward: Forward, batch: Batch, whole: Tensor | None = None) -> None:
        self._forward = forward
        self._batch = batch
        self._whole = whole
        self._is_random = False
        self._is_deterministic = False
        self._largest_difference: Tensor | None = None

    @property
    def accepts_whole(self) -> bool:
        """Whether the model accepts the whole batch, and its output has as many examples."""
        if self._whole is None:
            dropout, effects = WithoutDropout(), SideEffects(self._forward.model)
            self._whole = self._outputs(self._batch, dropout)
            self._is_random = effects.are_random
            self._is_deterministic = not (
                dropout.has_disabled or self._is_random or effects.are_in_model
            )
        return self._whole is not None

    @property
    def knows_outputs(self) -> bool:
        """Whether a training call would give the outputs for the whole batch that are known.

        That is so if the model accepted it, without dropout, without random numbers and without
        changing itself.
        """
        return self._whole is not None and self._is_deterministic

    def of_front(self, batch: Batch) -> CutCheck:
        """Return a check of parts of a batch that is the front of this one, or all of it.

        Args:
            batch: The front; where this batch may not be cut, it is all of it.
        """
        if self._whole is None or self._is_random or len(self._whole) < batch.examples:
            return CutCheck(self._forward, batch)
        return CutCheck(self._forward, batch, self._whole[: batch.examples])

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
        if self._is_random:  # the numbers for the part may be the first ones for the whole batch
            return False
        part = self._outputs(self._batch.select(start, stop), WithoutDropout())
        return part is not None and self.agrees(start, part)

    def agrees(self, start: int, part: Tensor) -> bool:
        """Return whether outputs that are known for a part equal those for the whole batch.

        Args:
            start: The first example of the part.
            part: Its outputs.
        """
        if self._whole is None or part.shape[1:] != self._whole.shape[1:]:
            return False
        part, whole = _comparable(part.detach()), self._whole[start : start + len(part)]
        difference = (part - whole).abs().masked_fill(part == whole, 0.0).max()  # inf - inf is NaN
        return bool(difference <= self._allowed_difference(self._whole))

    def keep_front(self, size: int) -> None:
        """Release the outputs of the whole batch but for the first examples; no part is later.

        Args:
            size: Number of examples.
        """
        if self._whole is not None and size < len(self._whole):
            self._allowed_difference(self._whole)
            self._whole = self._whole[:size].clone()

    def _allowed_difference(self, whole: Tensor) -> Tensor:
        if self._largest_difference is None:
            tensors = [whole, *self._forward.model.parameters()]
            tolerance = max(_CUT, _CUT_ROUNDOFFS * forward_roundoff(self._batch, tensors))
            largest = whole.abs().masked_fill(~whole.isfinite(), 0.0).max()
            self._largest_difference = tolerance * largest
        return self._largest_difference

    @torch.no_grad()
    def _outputs(self, batch: Batch, dropout: WithoutDropout) -> Tensor | None:
        """Return the outputs, or None if the model does not accept the batch.

        Batch norm refuses a single example, for instance.

        Args:
            batch: The batch.
            dropout: Disables dropout.

        Raises:
            OutOfMemoryError: The batch does not fit into memory.
        """
        try:
            with dropout:
                outputs = self._forward.without_graph(batch)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS:
            return None
        return _comparable(outputs)


def _comparable(outputs: Tensor) -> Tensor:
    return outputs if outputs.is_complex() else outputs.float()
