"""Which groups write into the residual stream, as the forward passes of blocks show it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fslr.torch import ModelGroups

WIDTH = 8


def written(model: nn.Module) -> dict[str, bool]:
    """Return what the layout states of the groups of a model; the advisor decides the others."""
    trained = [p for p in model.parameters() if p.requires_grad]
    layout = ModelGroups(model, torch.optim.SGD(trained, lr=0.1)).layout()
    return {g.name: g.residual_output for g in layout.groups if g.HasField("residual_output")}


def stack(block: Callable[[], nn.Module], *, width: int = WIDTH) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), block(), block(), nn.Linear(width, 2))


class Residual(nn.Module):
    """Adds the output of a branch to its input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


def mlp() -> Residual:
    return Residual(
        nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH), nn.Dropout(0.5)
    )


class Attention(nn.Module):
    """Attention with a check of the length, and a layer scale after it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, WIDTH))
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        if length > 64:
            raise ValueError("too long")
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 2, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = (
            x
            + self.mix(mixed.transpose(1, 2).reshape(batch, length, width))
            + self.gain * self.feed(x)
        )
        return out


class Basic(nn.Module):
    """The block of a small ResNet, whose first one in a stage changes the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.downsample(x)
        rectified: Tensor = self.relu(out)
        return rectified


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.layer1 = nn.Sequential(Basic(4, 4), Basic(4, 4))
        self.layer2 = nn.Sequential(Basic(4, 8), Basic(8, 8))


class SumsOutside(nn.Module):
    """A model that adds the outputs of its layers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(
            nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Sequential(*mlp().branch)]) for _ in range(2)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in self.layers:
            x = first(x) + x
            x = x + second(x)
        out: Tensor = self.norm(x)
        return out


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


LAST = {"weight", "bias"}


@pytest.mark.parametrize(
    ("build", "outputs"),
    [
        (lambda: stack(mlp), {f"{i}.branch.3.{t}" for i in (1, 2) for t in LAST}),
        (
            lambda: stack(Attention),
            {f"{i}.{n}" for i in (1, 2) for n in ("mix.weight", "mix.bias", "gain")},
        ),
        (ResNet, {f"layer{i}.{j}.bn2.{t}" for i in (1, 2) for j in (0, 1) for t in LAST}),
        (SumsOutside, {f"layers.{i}.{n}.{t}" for i in (0, 1) for n in ("0", "1.3") for t in LAST}),
        (
            encoder,
            {
                f"layers.{i}.{n}.{t}"
                for i in (0, 1)
                for n in ("self_attn.out_proj", "linear2")
                for t in LAST
            },
        ),
    ],
    ids=["sequential", "attention", "ResNet", "sums outside", "torch"],
)
def test_the_last_weights_of_branches_write_into_the_stream(
    build: Callable[[], nn.Module], outputs: set[str]
) -> None:
    found = written(build())
    assert {name for name, flag in found.items() if flag} == outputs
    inside = [name for name in found if name not in outputs]
    assert inside  # the other layers of the blocks do not
    assert not any("downsample" in name for name in inside)


class Branch(nn.Module):
    """Two linear layers, and something between the last one and the sum."""

    def __init__(self, end: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.end = end
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(x, self.down(self.up(x).relu()))


def compared(x: Tensor, out: Tensor) -> Tensor:
    return x + out if float(out.sum()) >= 0 and out[0, 0] is not None else x


@pytest.mark.parametrize(
    "end",
    [
        lambda x, out: x + functional.gelu(out),  # a factor does not pass through
        lambda x, out: x + out.sigmoid() * out,  # a gate
        lambda x, out: x + torch.from_numpy(out.detach().numpy()),  # is not followed
        lambda _, out: out,
        lambda x, out: torch.cat([x, out], -1),
        compared,  # fails on an empty batch
    ],
)
def test_what_forward_passes_do_not_show_is_left_open(
    end: Callable[[Tensor, Tensor], Tensor],
) -> None:
    assert written(stack(lambda: Branch(end))) == {}


def test_a_frozen_layer_is_not_the_last_one() -> None:
    model = stack(Attention)
    for i in (1, 2):
        model.get_parameter(f"{i}.gain").requires_grad_(False)
    found = written(model)
    outputs = {f"{i}.{n}.{t}" for i in (1, 2) for n in ("mix", "feed.2") for t in LAST}
    assert {name for name, flag in found.items() if flag} == outputs


class Intrusive(nn.Module):
    """A block that counts its calls in places of all kinds, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.steps, self.seen, self.last = 0, [0], torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.steps += 1
        self.seen.append(self.steps)
        self.last = x
        draws = float(torch.rand(())) + random.random() + float(np.random.rand())  # noqa: NPY002
        out: Tensor = x + self.layer(self.norm(x)) * draws
        return out


def random_states() -> tuple[Any, ...]:
    numbers: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numbers[1].tolist(), numbers[2]


def test_looking_at_a_block_changes_nothing() -> None:
    model = stack(Intrusive)
    calls: list[Any] = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generators = random_states()
    found = written(model)
    assert {name for name, flag in found.items() if flag} == {
        f"{i}.layer.{t}" for i in (1, 2) for t in LAST
    }
    assert calls == []
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    block: Any = model.get_submodule("1")
    assert (block.steps, block.seen, block.last.shape) == (0, [0], (3,))
    assert random_states() == generators
