"""Which rows of a tensor belong to which example, and inner products of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where a tensor carries its examples.

    Attributes:
        kind: ``dimension``: one of its dimensions counts the examples. ``blocks``: its leading
            dimension is all rows of example 0, then all of example 1, and so on (``[B * T, D]``).
            ``interleaved``: its leading dimension is the first row of every example, then the
            second (``[T * B, D]``).
        dimension: Which one; 0 for the other kinds.
    """

    kind: Literal["dimension", "blocks", "interleaved"]
    dimension: int = 0

    def fits(self, shape: torch.Size, examples: int) -> bool:
        """Return whether a tensor of this shape can carry its examples so."""
        if self.kind == "dimension":
            return self.dimension < len(shape) and shape[self.dimension] == examples
        return len(shape) > 0 and shape[0] % examples == 0

    def arranged(self, tensor: Tensor, examples: int) -> tuple[Tensor, int]:
        """Return a view of the tensor with a dimension of the examples, and which one that is."""
        if self.kind == "dimension":
            return tensor, self.dimension
        rest = tensor.shape[1:]
        if tensor.shape[0] == 1:  # a change that is the same for all rows
            return tensor.reshape(1, 1, *rest), 0
        if self.kind == "blocks":
            return tensor.reshape(examples, -1, *rest), 0
        return tensor.reshape(-1, examples, *rest), 1


def possible_layouts(shape: torch.Size, examples: int, flattened: Iterable[int]) -> list[RowLayout]:
    """Return the layouts that a shape allows, the likeliest first; which is true must be checked.

    Args:
        shape: Shape of a function's result.
        examples: Number of examples B.
        flattened: Sizes of a leading dimension of all rows of all examples, such as B * T.
    """
    found = [RowLayout("dimension", d) for d, size in enumerate(shape) if size == examples]
    if len(shape) > 1 and shape[0] in flattened:
        found += [RowLayout("blocks"), RowLayout("interleaved")]
    return found


def is_silent(cotangent: Tensor, layout: RowLayout, silent: Tensor) -> bool:
    """Return whether the rows of some examples are exactly zero.

    Args:
        cotangent: A cotangent.
        layout: Where it is supposed to carry its examples.
        silent: The examples, bool [B].
    """
    view, dimension = layout.arranged(cotangent, len(silent))
    return not bool(view.movedim(dimension, 0)[silent].any())


def inner_products(
    cotangent: Tensor, change: Tensor, layout: RowLayout | None, examples: int
) -> Tensor:
    """Return ``<cotangent, change>`` per example, in float32.

    Args:
        cotangent: At a function's result.
        change: Change of the result, of a shape that broadcasts over it.
        layout: Where the result carries its examples; None: it is not known to.
        examples: Number of examples B.

    Returns:
        Shape [B]; shape [1], the sum over all rows, without a layout.
    """
    change = change.reshape((*[1] * (cotangent.dim() - change.dim()), *change.shape))
    if layout is None:
        cotangent, change, dimension = cotangent.unsqueeze(0), change.unsqueeze(0), 0
    else:
        change = layout.arranged(change, examples)[0]
        cotangent, dimension = layout.arranged(cotangent, examples)
    left, right = cotangent.float(), change.float()
    if right.shape != left.shape:
        # A bias, say: the cotangent is summed first where the change repeats.
        repeated = [
            d for d in range(left.dim()) if right.shape[d] == 1 != left.shape[d] and d != dimension
        ]
        if repeated:
            left = left.sum(repeated, keepdim=True)
        right = right.expand(left.shape)
    left, right = left.movedim(dimension, 0), right.movedim(dimension, 0)
    left, right = left.reshape(len(left), -1), right.reshape(len(right), -1)
    products: Tensor = torch.linalg.vecdot(left, right)
    return products
