"""Weights of output elements: which elements of an output count, and how much.

With weights ``w`` the rate is ``sqrt(sum(w * change^2) / sum(w))``. If each entry of a probe is
multiplied by ``sqrt(w)``, the squared projection of a change has the mean ``sum(w * change^2)``, so
no estimator has to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.torch.model.structure import entries
from fslr.training.summaries import mask_label

Mask = Callable[[Mapping[str, Any], Any], Tensor | None] | str | None
"""Weighs output elements: a key of the batch, or a function of the inputs and the result."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of the elements of an output.

    Attributes:
        weights: As the mask gives them, of a shape that broadcasts to that of the output.
        roots: Their square roots, in the output's type.
        repeats: Number of output elements for each weight.
        label: The mask's label, for messages.
    """

    weights: Tensor
    roots: Tensor
    repeats: int
    label: str

    def total(self) -> float:
        """Return the sum of the weights over all output elements.

        Raises:
            MeasurementError: A weight is negative or not finite.
        """
        if self.weights.numel() == 0:
            return 0.0
        precise = torch.float32 if self.weights.device.type == "mps" else torch.float64
        least, total = torch.stack([
            self.weights.amin().to(precise),
            self.weights.sum(dtype=precise),
        ]).tolist()
        if not (least >= 0 and total < float("inf")):
            raise MeasurementError(
                f"the mask {self.label!r} has weights down to {least:g} and their sum is "
                f"{total:g}; weights must be finite and at least 0. For labels in which -100 is "
                "ignored, use a function: mask=lambda inputs, result: inputs['labels'] != -100"
            )
        return float(total) * self.repeats

    def weigh(self, cotangent: Tensor) -> Tensor:
        """Multiply a probe by the square roots of the weights, in place, and return it."""
        return cotangent.mul_(self.roots)

    def clear(self, change: Tensor) -> Tensor:
        """Set a change to 0 where nothing counts, even if it is not finite there, and return it."""
        return change.masked_fill_(self.roots == 0, 0.0)

    def moved(self, dim: int) -> Weights:
        """Return the weights of an output whose dimension ``dim`` was moved to the front."""
        weights, roots = self.weights.movedim(dim, 0), self.roots.movedim(dim, 0)
        return replace(self, weights=weights, roots=roots)

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean of values of the output's shape.

        Args:
            values: The values.
        """
        weights = self.weights.to(values.dtype)
        counted = torch.where(weights > 0, values * weights, 0.0)
        return counted.sum() / (weights.sum() * self.repeats)


@torch.no_grad()
def weights_of(
    mask: Mask, arguments: Mapping[str, Any], result: Any, output: Tensor
) -> Weights | None:
    """Return the weights of an output's elements; None: all count the same.

    Args:
        mask: The mask.
        arguments: The call's arguments by name.
        result: The model's result.
        output: The output that was selected from it.

    Raises:
        MeasurementError: The key does not exist, the function raised an exception, or what it gives
            is not a tensor whose shape broadcasts to the output's leading dimensions.
        OutOfMemoryError: The function needs more memory than there is.
    """
    if mask is None:
        return None
    label = mask_label(mask)
    weights: Any
    if isinstance(mask, str):
        weights = _lookup(mask, arguments)
    else:
        try:
            weights = mask(arguments, result)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise MeasurementError(
                f"the mask {label!r} raised {error!r}; it is called with the inputs "
                f"({_listed(arguments)}) and the model's result"
            ) from error
    if weights is None:
        return None
    if not isinstance(weights, Tensor):
        raise MeasurementError(
            f"the mask {label!r} is a {type(weights).__name__}; it must be a tensor of weights, or "
            "None if every output element counts"
        )
    shape = tuple(weights.shape)
    fits = weights.dim() <= output.dim() and all(
        size in {1, whole} for size, whole in zip(shape, output.shape, strict=False)
    )
    if not fits or weights.is_complex():
        raise MeasurementError(
            f"the mask {label!r} has shape {shape} and type {weights.dtype}, and the output has "
            f"shape {tuple(output.shape)}; weights must be real numbers whose shape broadcasts to "
            "the output's leading dimensions, such as (B, T) for (B, T, V), and (B, 1, H, W) for "
            "(B, C, H, W)"
        )
    weights = weights.detach().to(output.device)
    weights = weights.reshape(*shape, *[1] * (output.dim() - weights.dim()))
    roots = weights.float().sqrt().to(output.real.dtype)
    return Weights(weights, roots, output.numel() // max(1, weights.numel()), label)


def _lookup(key: str, arguments: Mapping[str, Any]) -> Any:
    """Return the argument of a name, or the entry of an argument that has one of this name.

    Raises:
        MeasurementError: There is none.
    """
    if key in arguments:
        return arguments[key]
    for argument in arguments.values():
        # A wrapper's forward(*args) has its positional arguments in one tuple.
        for value in (argument, *(argument if isinstance(argument, (tuple, list)) else ())):
            if not isinstance(value, Tensor) and key in (found := entries(value)):
                return found[key]
    raise MeasurementError(
        f"mask={key!r} does not exist in the batch; the model was called with: "
        f"{_listed(arguments)}; pass it to the model in every training call, or use a function of "
        "(inputs, result)"
    )


def _listed(arguments: Mapping[str, Any]) -> str:
    """Return the names of arguments and of their entries, for messages."""
    listed: list[str] = []
    for name, value in arguments.items():
        inner = {} if isinstance(value, (Tensor, tuple, list)) else entries(value)
        listed.append(f"{name} with {', '.join(map(repr, inner))}" if inner else repr(name))
    return ", ".join(listed) or "no arguments"
