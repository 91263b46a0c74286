"""Finds low-rank adapters by shape and use, whatever their factors are called.

A module is an adapted layer if its own parameters and those of its immediate children are, apart
from vectors:

- one frozen matrix, of shape (out, in) or (in, out);
- two trained matrices A and B. A has in and r dimensions, B has r and out ones, with the rank r
  below both in and out.

Its children are layers with a matrix, dropout and identities. Any other child, such as an
activation or a norm, may act between A and B; then more than their product counts. What the
module's ``forward`` computes is not known, since the model is not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from fslr.training.adapter_rates import is_low_rank


class Adapter(NamedTuple):
    """The factors of a low-rank adapter.

    Attributes:
        a: The factor that reads the layer's input.
        b: The factor that writes its output.
    """

    a: nn.Parameter
    b: nn.Parameter


class _Matrix(NamedTuple):
    """A parameter of at least two dimensions.

    Attributes:
        parameter: The parameter.
        shape: Its shape.
        is_linear: Whether it is the weight of a linear layer, whose shape is (out, in).
        is_table: Whether it is the table of an embedding, whose shape is (in, out).
    """

    parameter: nn.Parameter
    shape: tuple[int, ...]
    is_linear: bool
    is_table: bool


def adapters_of(model: nn.Module) -> list[Adapter]:
    """Return the adapters of a model, in its order; the model is not run.

    Args:
        model: The module inside all wrappers.
    """
    found = (_adapter_of(module) for module in model.modules())
    return [adapter for adapter in found if adapter is not None]


def _adapter_of(module: nn.Module) -> Adapter | None:
    """Return the adapter of a module, or None."""
    children = list(module.children())
    if not all(map(_is_linear, children)):
        return None
    matrices = list(_matrices_of(module, children))
    frozen = [matrix for matrix in matrices if not matrix.parameter.requires_grad]
    trained = [matrix for matrix in matrices if matrix.parameter.requires_grad]
    if len(frozen) != 1 or len(trained) != 2 or len(frozen[0].shape) != 2:
        return None
    if frozen[0].is_table and any(matrix.is_linear for matrix in trained):
        return None  # the linear layers read rows of the table, or are not used with it
    layouts = [frozen[0].shape, *([] if frozen[0].is_linear else [frozen[0].shape[::-1]])]
    for outputs, inputs in layouts:
        for a, b in (trained, trained[::-1]):
            if (a.is_linear and a.shape[1] != inputs) or (b.is_linear and b.shape[0] != outputs):
                continue  # they have the shapes of factors only if transposed
            if is_low_rank(a.shape, b.shape, inputs=inputs, outputs=outputs):
                return Adapter(a.parameter, b.parameter)
    return None


def _is_linear(child: nn.Module) -> bool:
    """Return whether a child of an adapted layer is a part of its linear map."""
    if isinstance(child, nn.Dropout | nn.Identity):
        return True
    # A norm has parameters too, but no matrix.
    return not any(child.children()) and any(True for _ in _matrices_of(child, []))


def _matrices_of(module: nn.Module, children: list[nn.Module]) -> Iterator[_Matrix]:
    """Iterate over the matrices of a module and its children; vectors are left out."""
    for owner in (module, *children):
        for name, parameter in owner.named_parameters(recurse=False):
            shape = tuple(parameter.shape)
            if len(shape) > 1 and not name.endswith("bias"):
                is_linear = isinstance(owner, nn.Linear) and name == "weight"
                yield _Matrix(parameter, shape, is_linear, isinstance(owner, nn.Embedding))
