"""In which type sums over tensors are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def summed_as(tensor: Tensor) -> torch.dtype:
    """Return the type in which a tensor's squares are summed: its own, or at least float32.

    Squares of float16 would overflow.

    Args:
        tensor: The tensor, real or complex.
    """
    least = torch.complex64 if tensor.is_complex() else torch.float32
    return torch.promote_types(tensor.dtype, least)
