"""How far rounding may move a number that is compared in a check."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fslr.torch.model.batch import Batch


def roundoff(dtype: torch.dtype) -> float:
    """Return the unit roundoff of a type: the largest relative error of a rounded number.

    float32 has that of a less precise type if PyTorch may use it for products of matrices.

    Args:
        dtype: The type.
    """
    if not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    exact = torch.finfo(dtype).eps / 2
    if dtype in {torch.float32, torch.complex64}:
        return max(exact, _products_roundoff())
    return exact


def _products_roundoff() -> float:
    """Return the unit roundoff of products of float32 matrices and convolutions."""
    try:
        precision = torch.get_float32_matmul_precision()
        uses_tf32 = torch.cuda.is_available() and (
            torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        )
    except RuntimeError:  # PyTorch's old and new settings of precision were mixed
        return _TF32
    if precision == "medium":
        return roundoff(torch.bfloat16)
    return _TF32 if uses_tf32 else 0.0


_TF32 = 2.0**-11


def forward_roundoff(batch: Batch, tensors: Iterable[Tensor]) -> float:
    """Return the unit roundoff of the least precise type that a forward pass computes with.

    Args:
        batch: The batch, with the states of autocast.
        tensors: The model's parameters and outputs.
    """
    dtypes = {tensor.dtype for tensor in tensors}
    dtypes |= {state.dtype for state in batch.autocasts if state.enabled}
    return max(map(roundoff, dtypes), default=0.0)
