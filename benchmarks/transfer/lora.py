"""A minimal implementation of low-rank adapters (LoRA, arXiv 2106.09685) on a character GPT."""

from __future__ import annotations

import math

from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT

ALPHA = 8.0


class LoRALinear(nn.Module):
    """A frozen linear layer W with an adapter: ``W x + (alpha / rank) B A x``.

    B starts at zero, so the adapted layer starts as the frozen one. Only A and B are trained.

    Args:
        frozen: The layer; its parameters are frozen in place.
        rank: Rows of A and columns of B.
        alpha: Numerator of the adapter's scale, as in PEFT.
    """

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float = ALPHA) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(requires_grad=False)
        self.a = nn.Linear(frozen.in_features, rank, bias=False)
        self.b = nn.Linear(rank, frozen.out_features, bias=False)
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.a.weight, a=math.sqrt(5))
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the adapted layer."""
        adapted: Tensor = self.frozen(x) + self.scale * self.b(self.a(x))
        return adapted


def with_adapters(model: CharGPT, rank: int) -> CharGPT:
    """Freeze a model and adapt all four linear layers of each of its blocks, in place.

    Args:
        model: The pretrained model.
        rank: Rank of the adapters.
    """
    model.requires_grad_(requires_grad=False)
    for block in model.blocks:
        owners = [
            (block.attention, "qkv"),
            (block.attention, "out"),
            (block, "up"),
            (block, "down"),
        ]
        for owner, name in owners:
            setattr(owner, name, LoRALinear(getattr(owner, name), rank))
    return model
