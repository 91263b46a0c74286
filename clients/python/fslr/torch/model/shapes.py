"""Shapes and fans of parameters: how many inputs an output sums over, and the reverse.

=========================================  ==========================  ===================
module                                     shape of its parameter      fan-in, fan-out
=========================================  ==========================  ===================
Linear, LSTM, GRU, MultiheadAttention      (out, in)                   in, out
Conv1D of Transformers                     (in, out)                   in, out
Bilinear                                   (out, in, other in)         in x other in, out
Conv1d, Conv2d, Conv3d                     (out, in / g, kernel)       in k / g, out k / g
ConvTranspose1d, 2d, 3d                    (in, out / g, kernel)       in k / g, out k / g
all experts of a block in one tensor       (experts, in, out)          in, out
the same if ``is_transposed`` is False     (experts, out, in)          in, out
a table: embedding, positions              (rows, length)              rows, length
a vector: bias, gain                       (length)                    1, length
any other tensor of two dimensions         (out, in)                   in, out
any other                                                              unknown
=========================================  ==========================  ===================

A kernel has k entries, and g is the number of groups of a convolution. Strides do not count, nor do
dimensions of size 1 in front of a table. ``is_transposed`` is an attribute of experts in
Transformers.
"""

from __future__ import annotations

import math

from torch import nn

from fslr.advisor.v1 import layout_pb2
from fslr.torch.model.owners import Owner

_TABLE, _VECTOR = layout_pb2.GROUP_KIND_EMBEDDING, layout_pb2.GROUP_KIND_VECTOR
_EXPERT = layout_pb2.GROUP_KIND_EXPERT
_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_TransposedConvolution = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Convolution = _Convolution | _TransposedConvolution
"""All classes of convolutions."""


def fans_of(
    owner: Owner, shape: tuple[int, ...], kind: layout_pb2.GroupKind.ValueType
) -> tuple[int, int]:
    """Return fan-in and fan-out of a parameter; 0 and 0 if they are unknown.

    Args:
        owner: The module that owns it.
        shape: Its shape, all sizes at least 1.
        kind: What it does in its model.
    """
    module, dimensions = owner.module, len(shape)
    if kind == _VECTOR:
        # The biases of all experts of a block are one tensor: each has the length of a row.
        is_bias = bool(shape) and owner.name.endswith("bias")
        return 1, shape[-1] if is_bias else math.prod(shape)
    if kind == _TABLE:
        return math.prod(shape[:-1]), shape[-1]
    if isinstance(module, Convolution) and dimensions > 2:
        return _fans_of_convolution(module, shape)
    if isinstance(module, nn.Bilinear) and dimensions == 3:
        return shape[1] * shape[2], shape[0]
    if dimensions == 2 or (dimensions == 3 and kind == _EXPERT):
        *_, first, second = shape
        return (first, second) if _is_input_first(owner, dimensions) else (second, first)
    return 0, 0


def _fans_of_convolution(
    module: _Convolution | _TransposedConvolution, shape: tuple[int, ...]
) -> tuple[int, int]:
    first, second, *kernel = shape
    first = first // module.groups
    if isinstance(module, _TransposedConvolution):
        first, second = second, first
    return second * math.prod(kernel), first * math.prod(kernel)


def _is_input_first(owner: Owner, dimensions: int) -> bool:
    """Return whether a matrix, or each matrix of a stack, is (in, out) instead of (out, in)."""
    if dimensions == 3:
        return getattr(owner.module, "is_transposed", None) is not False
    return "Conv1D" in owner.class_names
