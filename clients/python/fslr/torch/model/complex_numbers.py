"""Complex tensors as real ones."""

from __future__ import annotations

import torch
from torch import Tensor


def as_real(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors as real ones: unchanged if all of them are real.

    Otherwise, each has a new last dimension of size 2 with its real and imaginary parts.
    """
    if not any(tensor.is_complex() for tensor in tensors):
        return tensors
    return tuple(map(_pairs, tensors))


def _pairs(tensor: Tensor) -> Tensor:
    if not tensor.is_complex():
        return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)
    return torch.view_as_real(tensor.resolve_conj())
