"""The GPTs of the practice benchmark."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.practice.setups import Architecture, Size

_HEAD_WIDTH = 8
_STD = 0.02
_ROTARY_PERIOD = 10_000.0


def _norm(architecture: Architecture, width: int) -> nn.Module:
    return nn.RMSNorm(width) if architecture.norm == "rms" else nn.LayerNorm(width)


class Rotation(nn.Module):
    """Rotary positions (arXiv 2104.09864)."""

    def __init__(self, context: int) -> None:
        super().__init__()
        half = _HEAD_WIDTH // 2
        frequencies = _ROTARY_PERIOD ** (-torch.arange(half) / half)
        angles = torch.arange(context)[:, None] * frequencies
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, ``[B, heads, T, head width]``."""
        first, second = x.chunk(2, -1)
        cos, sin = (part[: x.shape[2]].to(x.dtype) for part in (self.cos, self.sin))
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, architecture: Architecture, width: int, context: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=architecture.biases)
        self.projection = nn.Linear(width, width, bias=architecture.biases)
        self.rotation = Rotation(context) if architecture.positions == "rotary" else None

    def forward(self, x: Tensor) -> Tensor:
        """Attend, ``[B, T, width] -> [B, T, width]``."""
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, 3, -1, _HEAD_WIDTH)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if self.rotation is not None:
            query, key = self.rotation(query), self.rotation(key)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        return attended


class FeedForward(nn.Module):
    """The feed-forward branch of a block."""

    def __init__(self, architecture: Architecture, width: int) -> None:
        super().__init__()
        gated = architecture.feed_forward == "swiglu"
        inner = (3 if gated else 4) * width
        self.gate = nn.Linear(width, inner, bias=architecture.biases) if gated else None
        self.up = nn.Linear(width, inner, bias=architecture.biases)
        self.projection = nn.Linear(inner, width, bias=architecture.biases)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position, ``[B, T, width] -> [B, T, width]``."""
        inner = F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x)
        fed: Tensor = self.projection(inner)
        return fed


class Block(nn.Module):
    """Transformer block."""

    def __init__(self, architecture: Architecture, width: int, context: int) -> None:
        super().__init__()
        self.is_post_norm = architecture.placement == "post"
        self.norm1 = _norm(architecture, width)
        self.attention = Attention(architecture, width, context)
        self.norm2 = _norm(architecture, width)
        self.feed_forward = FeedForward(architecture, width)

    def forward(self, x: Tensor) -> Tensor:
        """Add attention and feed-forward, ``[B, T, width] -> [B, T, width]``."""
        if self.is_post_norm:
            x = self.norm1(x + self.attention(x))
            normalized: Tensor = self.norm2(x + self.feed_forward(x))
            return normalized
        x = x + self.attention(self.norm1(x))
        added: Tensor = x + self.feed_forward(self.norm2(x))
        return added


class PracticeGPT(nn.Module):
    """Maps character indices ``[B, T]`` to float32 logits ``[B, T, vocabulary]``.

    Args:
        architecture: The kind of model.
        size: Its size.
        vocabulary: Number of distinct characters.
        context: Largest number of characters in a sequence.
        hidden_scale: Factor on the initial matrices of the blocks.
    """

    def __init__(
        self,
        architecture: Architecture,
        size: Size,
        vocabulary: int,
        context: int,
        hidden_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, size.width)
        self.positions = (
            nn.Embedding(context, size.width) if architecture.positions == "learned" else None
        )
        self.blocks = nn.ModuleList(
            Block(architecture, size.width, context) for _ in range(size.blocks)
        )
        # Post-norm blocks already normalize the stream.
        is_post_norm = architecture.placement == "post"
        self.norm = nn.Identity() if is_post_norm else _norm(architecture, size.width)
        self.head = nn.Linear(size.width, vocabulary, bias=False)
        _initialize(self, architecture, size)
        with torch.no_grad():
            for parameter in self.blocks.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(hidden_scale)
        if architecture.tied:
            self.characters.weight = self.head.weight

    def forward(self, indices: Tensor) -> Tensor:
        """Return the logits of the next character at every position."""
        x = self.characters(indices)
        if self.positions is not None:
            x = x + self.positions(torch.arange(indices.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits.float()


@torch.no_grad()
def _initialize(model: PracticeGPT, architecture: Architecture, size: Size) -> None:
    """Set the initial weights; PyTorch has already set its own."""
    if architecture.initial == "pytorch":
        return
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=_initial_std(name, parameter, architecture, size))


def _initial_std(name: str, parameter: Tensor, architecture: Architecture, size: Size) -> float:
    if architecture.initial == "mup":
        if name.startswith("blocks."):
            return 1 / math.sqrt(parameter.shape[1])
        return 0.0 if name.startswith("head.") else _STD
    if name.endswith("projection.weight"):
        is_zero = architecture.initial == "zero_projections"
        return 0.0 if is_zero else _STD / math.sqrt(2 * size.blocks)
    return _STD
