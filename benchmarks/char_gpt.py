"""A character-level GPT with three norm placements, learned positions and an untied head.

Its feed-forward layers can be mixtures of experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

NormPlacement = Literal["pre", "post", "post_mod"]
"""Where a block with branch f and layer norm N normalizes the residual stream x.

``pre``: x + f(N(x)). ``post``: N(x + f(x)), as in the first transformer. ``post_mod``: x + N(f(x)),
the third placement of arXiv 2502.17405 ("PreNormPostMod"): after the module, before the sum.
"""


@dataclass(frozen=True, slots=True)
class CharGPTConfig:
    """Shape of a :class:`CharGPT`.

    Attributes:
        vocabulary: Number of distinct characters.
        width: Channels of the residual stream, a multiple of ``head_width``.
        blocks: Number of blocks.
        context: Maximum length of a sequence, in characters.
        head_width: Channels of one attention head.
        norm: Placement of the layer norms.
        experts: Number of experts in each block, of which each token uses one; 0 for a plain
            feed-forward layer.
    """

    vocabulary: int
    width: int
    blocks: int = 2
    context: int = 64
    head_width: int = 16
    norm: NormPlacement = "pre"
    experts: int = 0


class Attention(nn.Module):
    """Causal self-attention of basic operations, which have forward-mode derivatives."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.heads = config.width // config.head_width
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        mask = torch.ones(config.context, config.context).triu(1).bool()
        self.future: Tensor
        self.register_buffer("future", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, ``[B, T, width] -> [B, T, width]``."""
        batch, length, width = x.shape
        query, key, value = (
            self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(self.future[:length, :length], -math.inf)
        mixed = scores.softmax(-1) @ value
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return attended


class Mixture(nn.Module):
    """A mixture of experts: a router sends each token to one feed-forward layer.

    The expert's output is multiplied by its probability, so that the router is trained.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(_Expert(width) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of each token's expert, ``[B, T, width] -> [B, T, width]``."""
        rows = x.flatten(0, -2)
        probability, chosen = self.router(rows).softmax(-1).max(-1)
        mixed = torch.zeros_like(rows)
        for index, expert in enumerate(self.experts):
            own = (chosen == index).nonzero().squeeze(-1)
            mixed = mixed.index_add(0, own, probability[own, None] * expert(rows[own]))
        return mixed.view_as(x)


class _Expert(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        fed: Tensor = self.down(nn.functional.gelu(self.up(x)))
        return fed


class Block(nn.Module):
    """Transformer block."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.placement = config.norm
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mixture = Mixture(config.width, config.experts) if config.experts else None
        if self.mixture is None:
            self.up = nn.Linear(config.width, 4 * config.width)
            self.down = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Add attention and feed-forward, ``[B, T, width] -> [B, T, width]``."""
        x = self._add(x, self.norm1, self.attention)
        return self._add(x, self.norm2, self.mixture or self._feed_forward)

    def _feed_forward(self, x: Tensor) -> Tensor:
        fed: Tensor = self.down(nn.functional.gelu(self.up(x)))
        return fed

    def _add(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.placement == "pre":
            return x + branch(norm(x))
        if self.placement == "post_mod":
            added: Tensor = x + norm(branch(x))
            return added
        normalized: Tensor = norm(x + branch(x))
        return normalized


class CharGPT(nn.Module):
    """Maps character indices ``[B, T]`` to next-character logits ``[B, T, vocabulary]``."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.characters = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        # Post-norm blocks already normalize the stream.
        self.norm = nn.Identity() if config.norm == "post" else nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary)

    def forward(self, indices: Tensor) -> Tensor:
        """Return the logits of the next character at every position."""
        positions = torch.arange(indices.shape[1], device=indices.device)
        x = self.characters(indices) + self.positions(positions)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
