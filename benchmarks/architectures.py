"""Small models of many architectures, with random inputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.image_models import BasicBlock, ResMLP

VOCABULARY, CLASSES = 64, 10
_WIDTH, _LENGTH, _EXAMPLES, _PIXELS = 128, 64, 16, 20


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model and its inputs.

    Attributes:
        build: Builds the model.
        inputs: Draws the inputs.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]


def _tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (_EXAMPLES, _LENGTH))


def _images() -> Tensor:
    return torch.randn(_EXAMPLES, 3, _PIXELS, _PIXELS)


class _Language(nn.Module):
    """Token embeddings, layers, and a head."""

    def __init__(self, *layers: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, _WIDTH)
        self.layers = nn.ModuleList(layers)
        self.norm = norm or nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class _LlamaBlock(nn.Module):
    """Rotary attention and a gated MLP, without biases."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(_WIDTH), nn.RMSNorm(_WIDTH)
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH, bias=False)
        self.out = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.gate = nn.Linear(_WIDTH, 2 * _WIDTH, bias=False)
        self.up = nn.Linear(_WIDTH, 2 * _WIDTH, bias=False)
        self.down = nn.Linear(2 * _WIDTH, _WIDTH, bias=False)

    def _rotated(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        frequencies = 10_000.0 ** (-torch.arange(half) / half)
        angles = torch.arange(x.shape[-2])[:, None] * frequencies
        left, right = x.chunk(2, dim=-1)
        return torch.cat(
            [
                left * angles.cos() - right * angles.sin(),
                left * angles.sin() + right * angles.cos(),
            ],
            dim=-1,
        )

    def forward(self, x: Tensor) -> Tensor:
        split = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            self._rotated(split[0]), self._rotated(split[1]), split[2], is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norm2(x)
        out: Tensor = x + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return out


class _MixtureBlock(nn.Module):
    """Each token goes through one of several experts."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.router = nn.Linear(_WIDTH, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x).flatten(0, 1)
        weights, chosen = self.router(rows).softmax(-1).max(-1)
        mixed = torch.zeros_like(rows)
        for index, expert in enumerate(self.experts):
            (own,) = torch.where(chosen == index)
            mixed = mixed.index_add(0, own, weights[own, None] * expert(rows[own]))
        return x + mixed.view_as(x)


class _ScanBlock(nn.Module):
    """A selective state space with a loop over time, as in Mamba."""

    def __init__(self, states: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.inner = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.conv = nn.Conv1d(_WIDTH, _WIDTH, 4, padding=3, groups=_WIDTH)
        self.select = nn.Linear(_WIDTH, 2 * states + 1)
        self.poles = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(_WIDTH, 1))
        self.skip = nn.Parameter(torch.ones(_WIDTH))
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        inner, gate = self.inner(self.norm(x)).chunk(2, dim=-1)
        inner = functional.silu(self.conv(inner.mT)[..., : x.shape[1]].mT)
        chosen = self.select(inner)
        step = functional.softplus(chosen[..., :1, None])
        write, read = chosen[..., 1:].chunk(2, dim=-1)
        decay = torch.exp(-step * self.poles.exp())
        drive = step * inner[..., None] * write[..., None, :]
        state = torch.zeros_like(drive[:, 0])
        outputs = []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + drive[:, t]
            outputs.append((state * read[:, t, None]).sum(-1))
        mixed = torch.stack(outputs, 1) + self.skip * inner
        out: Tensor = x + self.out(mixed * functional.silu(gate))
        return out


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_WIDTH, _WIDTH, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(x)[0]
        return out


class _VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _WIDTH, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.positions = nn.Parameter(torch.randn(1, (_PIXELS // 2) ** 2 + 1, _WIDTH) / 50)
        self.blocks = nn.ModuleList(_encoder_layer() for _ in range(3))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).mT
        hidden = torch.cat([self.token.expand(len(patches), -1, -1), patches], 1) + self.positions
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.head(self.norm(hidden[:, 0]))
        return out


def _encoder_layer(*, norm_first: bool = True) -> nn.Module:
    return nn.TransformerEncoderLayer(
        _WIDTH, 4, 2 * _WIDTH, dropout=0.1, batch_first=True, norm_first=norm_first
    )


class _UNetBlock(nn.Module):
    """Group norm and a convolution, twice, around a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.GroupNorm(4, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)),
            *(nn.GroupNorm(4, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.layers(x)
        return out


class _UNet(nn.Module):
    """Predicts an image from an image; its last convolution starts at zero."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.down2 = _UNetBlock(width, width), _UNetBlock(width, 2 * width)
        self.middle = _UNetBlock(2 * width, 2 * width)
        self.up2, self.up1 = _UNetBlock(4 * width, width), _UNetBlock(2 * width, width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down1(self.first(x))
        low = self.down2(functional.avg_pool2d(high, 2))
        middle = self.middle(functional.avg_pool2d(low, 2))
        low = self.up2(torch.cat([low, functional.interpolate(middle, scale_factor=2.0)], 1))
        out: Tensor = self.last(
            self.up1(torch.cat([high, functional.interpolate(low, scale_factor=2.0)], 1))
        )
        return out


class _ConvolutionAttention(nn.Module):
    """Depthwise convolutions with layer norm, then attention over positions."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, stride=2)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 5, padding=2, groups=width) for _ in range(2)
        )
        self.mixes = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 4 * width),
                nn.GELU(),
                nn.Linear(4 * width, width),
            )
            for _ in range(2)
        )
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images)
        for conv, mix in zip(self.convs, self.mixes, strict=True):
            hidden = hidden + mix(conv(hidden).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        rows = hidden.flatten(2).mT
        rows = rows + self.attention(rows, rows, rows, need_weights=False)[0]
        out: Tensor = self.head(rows.mean(1))
        return out


def _resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        BasicBlock(32, 32, 1),
        BasicBlock(32, 64, 2),
        BasicBlock(64, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "GPT": Architecture(
        lambda: CharGPT(CharGPTConfig(VOCABULARY, _WIDTH, 3, _LENGTH)),
        _tokens,
    ),
    "Llama": Architecture(
        lambda: _Language(*(_LlamaBlock() for _ in range(3)), norm=nn.RMSNorm(_WIDTH)), _tokens
    ),
    "BERT": Architecture(
        lambda: _Language(*(_encoder_layer(norm_first=False) for _ in range(3))), _tokens
    ),
    "mixture of experts": Architecture(
        lambda: _Language(_LlamaBlock(), _MixtureBlock(), _LlamaBlock(), _MixtureBlock()), _tokens
    ),
    "LSTM": Architecture(lambda: _Language(_Recurrent()), _tokens),
    "state space": Architecture(lambda: _Language(_ScanBlock(), _ScanBlock()), _tokens),
    "ViT": Architecture(_VisionTransformer, _images),
    "ResNet": Architecture(_resnet, _images),
    "UNet": Architecture(_UNet, _images),
    "convolutions and attention": Architecture(_ConvolutionAttention, _images),
    "residual MLP": Architecture(
        lambda: ResMLP(256, 256, 6), lambda: torch.randn(4 * _EXAMPLES, 256)
    ),
}
"""The architectures by name."""
