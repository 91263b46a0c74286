"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Return images ``[N, 1, 8, 8]`` with values in [-1, 1] and their classes ``[N]``."""
    # Importing scikit-learn takes longer than importing torch, and few processes use the digits.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return images, torch.tensor(digits.target, dtype=torch.int64)


def draw_digits(examples: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Return a function that draws a batch of images ``[B, 1, 8, 8]`` and their classes ``[B]``.

    Args:
        examples: Examples per batch.
    """
    images, classes = _digits()

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(images), (examples,), generator=generator)
        return images[chosen], classes[chosen]

    return draw
