"""Which rows of a tensor belong to which example, and inner products of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fslr.torch.model.complex_numbers import as_real
from fslr.torch.model.sums import summed_as


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How a tensor is divided into examples.

    Attributes:
        kind: ``dimension``: one dimension of the tensor counts the examples. ``blocks``: the
            leading dimension holds all rows of example 0, then all rows of example 1, and so on
            (``[B * T, D]``). ``interleaved``: the leading dimension holds the first row of every
            example, then the second row of every example, and so on (``[T * B, D]``).
        dimension: The dimension that counts the examples; 0 for the other kinds.
        rows: Number of rows of each example in the leading dimension, for the other kinds. None: it
            may vary, as the length of a sequence does.
    """

    kind: Literal["dimension", "blocks", "interleaved"]
    dimension: int = 0
    rows: int | None = None

    def fits(self, shape: torch.Size, examples: int) -> bool:
        """Return whether a tensor of this shape can have this layout."""
        if self.kind == "dimension":
            return self.dimension < len(shape) and shape[self.dimension] == examples
        if self.rows is not None:
            return len(shape) > 0 and shape[0] == self.rows * examples
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
        flattened: Sizes of a leading dimension that merges examples and rows of an input, such as
            B * T; other multiples of B may be examples and rows too, such as parts of an image.
    """
    found = [RowLayout("dimension", d) for d, size in enumerate(shape) if size == examples]
    if len(shape) > 1 and shape[0] > examples and shape[0] % examples == 0:
        rows = None if shape[0] in flattened else shape[0] // examples
        found += [RowLayout("blocks", rows=rows), RowLayout("interleaved", rows=rows)]
    return found


def scales_by_example(
    before: Tensor, after: Tensor, layout: RowLayout, scales: Tensor, tolerance: float
) -> bool:
    """Return whether each example's rows are its former rows, multiplied by its scale.

    Args:
        before: The cotangent for a probe.
        after: The cotangent for the probe multiplied by a scale for each example.
        layout: The layout that both are assumed to have.
        scales: The scales, shape [B].
        tolerance: Allowed norm of the difference, relative to the norm of an example's rows.
    """
    rows: list[Tensor] = []
    for cotangent in (before, after):
        view, dimension = layout.arrange(cotangent, len(scales))
        rows.append(as_real(view.movedim(dimension, 0))[0].flatten(1))
    expected = rows[0] * scales.to(rows[0].dtype)[:, None]
    if torch.equal(
        rows[1], expected
    ):  # the scales are powers of two, so usually nothing is rounded
        return True
    dtype = summed_as(expected)
    norms = torch.linalg.vector_norm(expected, dim=1, dtype=dtype)
    errors = torch.linalg.vector_norm(rows[1] - expected, dim=1, dtype=dtype)
    return bool((errors <= tolerance * norms).all())


def inner_products(
    cotangent: Tensor, change: Tensor, layout: RowLayout | None, examples: int
) -> Tensor:
    """Return ``<cotangent, change>`` per example, in float32.

    For complex tensors it is the real part of the sum of ``conj(cotangent) * change``: the real
    inner product of their real and imaginary parts, because the gradient of a real number by a
    complex one is ``d/d real + i d/d imaginary`` in PyTorch.

    Args:
        cotangent: The cotangent at a function's result.
        change: A change of the result, of a shape that broadcasts to that of the result.
        layout: The layout of the result; None: unknown.
        examples: Number of examples B.

    Returns:
        One value per example, shape [B]. Without a layout the sum over all rows, shape [1].
    """
    products: Tensor
    if (
        layout is not None
        and (layout.kind, layout.dimension) == ("dimension", 0)
        and cotangent.shape == change.shape
        and not (cotangent.is_complex() or change.is_complex())
    ):
        # As nearly always. Models have many uses, so each operation counts.
        rows = cotangent.shape[0], -1
        left, right = cotangent.float().reshape(rows), change.float().reshape(rows)
        products = torch.linalg.vecdot(left, right)
        return products
    change = change.reshape((*[1] * (cotangent.dim() - change.dim()), *change.shape))
    if layout is None:
        cotangent, change, dimension = cotangent.unsqueeze(0), change.unsqueeze(0), 0
    else:
        change = layout.arrange(change, examples)[0]
        cotangent, dimension = layout.arrange(cotangent, examples)
    cotangent, change = as_real(cotangent, change)
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
    left, right = left.reshape(left.shape[0], -1), right.reshape(right.shape[0], -1)
    products = torch.linalg.vecdot(left, right)
    return products


def sums_of_terms(cotangent: Tensor, change: Tensor) -> Tensor:
    """Return ``<cotangent, change>`` and the sum of its squared terms, shape [2], in float32.

    Args:
        cotangent: The cotangent at a function's result.
        change: A change of the result, of a shape that broadcasts to that of the result.
    """
    if cotangent.shape == change.shape and not (cotangent.is_complex() or change.is_complex()):
        products = cotangent.float() * change.float()
        return torch.stack([products.sum(), products.square_().sum()])
    left, right = (tensor.float().square() for tensor in as_real(cotangent, change))
    squares = inner_products(left, right, None, 1)
    return torch.cat([inner_products(cotangent, change, None, 1), squares])
