"""Small realistic models, each with one use of parameters that is hard to measure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """Embedding and head share one tensor, both through their modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6, padding_idx=0)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.embed(x)))
        return logits


class CalledTwice(nn.Module):
    """One module is called twice, once with its output changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.out = nn.Linear(5, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x).relu_()
        out: Tensor = self.out(self.dropout(self.inner(input=x)))
        return out


class SequenceFirst(nn.Module):
    """Works on [T, B, D] internally, so the leading dimension is not the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.mix(torch.relu(self.up(x.transpose(0, 1))).cumsum(0))
        out: Tensor = self.head(inner.transpose(0, 1))
        return out


class Flattened(nn.Module):
    """Works on rows [B*T, D] internally."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(x.flatten(0, 1)))
        return out.view(*x.shape[:2], 2)


class PairsMixed(nn.Module):
    """Neighboring examples depend on each other, but the two halves of the batch do not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.inner(x).view(-1, 2, 6)
        mixed = pairs.mean(1, keepdim=True) + 0.1 * pairs
        out: Tensor = self.head(torch.tanh(mixed.reshape(-1, 6)))
        return out


class Adapted(nn.Module):
    """A frozen layer with an adapter that is initially zero, and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 6).requires_grad_(False)
        self.down = nn.Linear(4, 2, bias=False)
        self.up = nn.Linear(2, 6, bias=False)
        nn.init.zeros_(self.up.weight)
        self.unused = nn.Linear(3, 3)
        self.pooler = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.tanh(self.base(x) + self.up(self.down(x)))
        self.pooler(out)  # called, but the result is not used
        return out


class FixedBatch(nn.Module):
    """Accepts only batches of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.inner(x)).view(16, 6))
        return out


class TimeLeads(nn.Module):
    """The leading dimension is time, and later steps depend on earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.inner(x).cumsum(0)))
        return out


class EmbeddingOptions(nn.Module):
    """An embedding whose gradient is not the derivative of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5, padding_idx=0, scale_grad_by_freq=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.embed(x)))
        return out


class Normalized(nn.Module):
    """Batch norm in train mode: examples depend on each other, so the batch must not be split."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6, bias=False)  # batch norm would cancel a bias: its rate is zero
        self.statistics = nn.BatchNorm1d(6, affine=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.statistics(self.inner(x))))
        return out


class UsedWithoutCall(nn.Module):
    """The weight of the head is used without calling its module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.inner(x), self.head.weight) + self.head.bias


class RawParameters(nn.Module):
    """Parameters used directly: scalars, positions, a class token, parts of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(1, 6, 6))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.both = nn.Parameter(torch.randn(12, 6) / 3)
        self.shift = nn.Parameter(torch.randn(6))
        self.gate = nn.Parameter(torch.zeros(6))
        self.pairs = nn.Parameter(torch.randn(5, 6, 6) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        left, right = self.both.chunk(2)
        x = torch.tanh(x @ left.T) * self.scale + x @ right.t()
        x += self.shift
        x = x + self.gate * torch.sin(x)
        x = x - torch.einsum("btd,de->bte", x, self.pairs[2].transpose(0, 1))
        return x / (1 + self.scale.square())


class Bounded(nn.Module):
    """Keeps a weight's elements between -1 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Parametrized(nn.Module):
    """The weight is a nonlinear function of the parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)
        nn.utils.parametrize.register_parametrization(self.inner, "weight", Bounded())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.inner(x)))
        return out


class _Scaled(torch.autograd.Function):
    """A custom autograd function, which is opaque to tracing."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor) -> Tensor:
        return x * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return cotangent * scale, (cotangent * x).sum(0)

    @staticmethod
    def jvp(ctx: Any, x_change: Tensor | None, scale_change: Tensor | None) -> Tensor:
        x, scale = ctx.saved_tensors
        changes = [] if x_change is None else [x_change * scale]
        changes += [] if scale_change is None else [x * scale_change]
        return torch.stack(changes).sum(0)


class OwnFunction(nn.Module):
    """A parameter that is used in a custom autograd function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Scaled.apply(torch.tanh(self.inner(x)), self.scale)  # type: ignore[no-untyped-call]
        return out


class Recurrent(nn.Module):
    """A recurrent layer and a head on its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0][:, -1])
        return out


class RelativeBias(nn.Module):
    """Attention with a learned bias per distance, passed as the attention mask."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.bias = nn.Embedding(5, 1)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.masked = masked

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        distance = (places[:, None] - places[None, :]).abs().clamp(max=4)
        bias = self.bias(distance).permute(2, 0, 1).unsqueeze(0) * self.scale
        if self.masked:
            bias = bias.masked_fill(distance > 3, -10.0)
            bias = torch.where(distance > 2, bias, bias + 0.5)
        query, key, value = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return torch.tanh(mixed.squeeze(1))


class SelfAttention(nn.Module):
    """``nn.MultiheadAttention``, whose output projection is never called as a module."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.batch_first = options.get("batch_first", True)
        self.attention = nn.MultiheadAttention(8, 2, **{"batch_first": True, **options})
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        mixed = self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.head(mixed if self.batch_first else mixed.transpose(0, 1))
        return out
