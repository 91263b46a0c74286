"""Which rows of a tensor belong to which example, and inner products of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How a tensor is divided into examples.

    Attributes:
        kind: ``dimension``: one dimension of the tensor counts the examples. ``blocks``: the
            leading dimension holds all rows of example 0, then all rows of example 1, and so on
            (``[B * T, D]``). ``interleaved``: the leading dimension holds the first row of every
            example, then the second row of every example, and so on (``[T * B, D]``).
        dimension: The dimension that counts the examples; 0 for the other kinds.
    """

    kind: Literal["dimension", "blocks", "interleaved"]
    dimension: int = 0

    def fits(self, shape: torch.Size, examples: int) -> bool:
        """Return whether a tensor of this shape can have this layout."""
        if self.kind == "dimension":
            return self.dimension < len(shape) and shape[self.dimension] == examples
        return len(shape) > 0 and shape[0] % examples == 0

    def arrange(self, tensor: Tensor, examples: int) -> tuple[Tensor, int]:
        """Return a view of the tensor with one dimension of size B, and that dimension's index."""
        if self.kind == "dimension":
            return tensor, self.dimension
        rest = tensor.shape[1:]
        if tensor.shape[0] == 1:  # a change that is the same for all rows
            return tensor.reshape(1, 1, *rest), 0
        if self.kind == "blocks":
            return tensor.reshape(examples, -1, *rest), 0
        return tensor.reshape(-1, examples, *rest), 1


def possible_layouts(shape: torch.Size, examples: int, flattened: Iterable[int]) -> list[RowLayout]:
    """Return the layouts that a shape allows, the most likely first; a check must select one.

    Args:
        shape: Shape of a function's result.
        examples: Number of examples B.
        flattened: Sizes of a leading dimension that merges examples and rows, such as B * T.
    """
    found = [RowLayout("dimension", d) for d, size in enumerate(shape) if size == examples]
    if len(shape) > 1 and shape[0] in flattened:
        found += [RowLayout("blocks"), RowLayout("interleaved")]
    return found


def is_silent(cotangent: Tensor, layout: RowLayout, silent: Tensor) -> bool:
    """Return whether the rows of the given examples are exactly zero.

    Args:
        cotangent: The cotangent.
        layout: The layout that it is assumed to have.
        silent: The given examples, bool [B].
    """
    view, dimension = layout.arrange(cotangent, len(silent))
    return not bool(view.movedim(dimension, 0)[silent].any())


def inner_products(
    cotangent: Tensor, change: Tensor, layout: RowLayout | None, examples: int
) -> Tensor:
    """Return ``<cotangent, change>`` per example, in float32.

    Args:
        cotangent: The cotangent at a function's result.
        change: A change of the result, of a shape that broadcasts to that of the result.
        layout: The layout of the result; None: unknown.
        examples: Number of examples B.

    Returns:
        One value per example, shape [B]. Without a layout the sum over all rows, shape [1].
    """
    change = change.reshape((*[1] * (cotangent.dim() - change.dim()), *change.shape))
    if layout is None:
        cotangent, change, dimension = cotangent.unsqueeze(0), change.unsqueeze(0), 0
    else:
        change = layout.arrange(change, examples)[0]
        cotangent, dimension = layout.arrange(cotangent, examples)
    left, right = cotangent.float(), change.float()
    if right.shape != left.shape:
        # For example a bias: summing the cotangent first is cheaper than expanding the change.
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
