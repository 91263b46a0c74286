"""Adapters are found by shape and use; what only looks like one is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fslr.torch
from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.transfer.lora import with_adapters
from fslr.torch.model.adapters import adapters_of
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.kinds import describe
from fslr.training.adapter_rates import all_pairs, is_low_rank


def frozen(inputs: int = 8, outputs: int = 6) -> nn.Linear:
    return nn.Linear(inputs, outputs).requires_grad_(requires_grad=False)


def layer(*children: nn.Module) -> nn.Module:
    """Return a module with children of names that say nothing."""
    return nn.ModuleDict({f"part_{n}": child for n, child in enumerate(children)})


def raw(a: tuple[int, int], b: tuple[int, int]) -> nn.Module:
    """Return a linear layer with factors of its own, as loralib has them."""
    module = frozen()
    module.register_parameter("first", nn.Parameter(torch.zeros(a)))
    module.register_parameter("second", nn.Parameter(torch.zeros(b)))
    return nn.Sequential(module, nn.Linear(6, 6))


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


@pytest.mark.parametrize(
    "model",
    [
        layer(frozen(), linear(8, 2), linear(2, 6)),
        layer(linear(2, 6), linear(8, 2), frozen()),  # B is first
        layer(frozen(), nn.Dropout(), nn.Linear(8, 2), linear(2, 6), nn.Identity()),
        raw((2, 8), (6, 2)),
        raw((8, 2), (2, 6)),
    ],
)
def test_two_trained_factors_of_a_change_of_one_frozen_matrix_are_an_adapter(
    model: nn.Module,
) -> None:
    (adapter,) = adapters_of(model)
    assert 8 in adapter.a.shape
    assert 6 in adapter.b.shape
    assert {2} == set(adapter.a.shape) & set(adapter.b.shape)


@pytest.mark.parametrize(
    "model",
    [
        layer(linear(8, 6), linear(8, 2), linear(2, 6)),  # the layer is trained too
        layer(frozen(), nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 6)),  # an activation between
        layer(frozen(), nn.Linear(8, 2), nn.LayerNorm(2), nn.Linear(2, 6)),
        layer(frozen(), nn.Linear(8, 2), nn.PReLU(), nn.Linear(2, 6)),
        layer(frozen(), linear(6, 2), linear(2, 8)),  # what they read and write is swapped
        layer(frozen(), linear(8, 2), linear(3, 6)),  # different ranks
        layer(frozen(), linear(8, 6), linear(6, 6)),  # no low rank
        layer(frozen(), frozen(), linear(8, 2), linear(2, 6)),  # which one do they change?
        layer(frozen(), linear(8, 2), linear(2, 6), linear(8, 2), linear(2, 6)),
        layer(frozen(), nn.Sequential(linear(8, 2), nn.GELU(), linear(2, 6))),
        layer(linear(8, 2), linear(2, 6)),  # a narrow layer
        layer(nn.Embedding(6, 8).requires_grad_(requires_grad=False), linear(8, 2), linear(2, 6)),
        nn.Sequential(frozen(), nn.Conv2d(2, 8, 1), linear(2, 6)),
    ],
)
def test_what_only_looks_like_an_adapter_is_none(model: nn.Module) -> None:
    assert adapters_of(model) == []


def test_each_adapted_layer_of_a_transformer_has_one_rate_for_its_factors() -> None:
    torch.manual_seed(0)
    model = with_adapters(CharGPT(CharGPTConfig(16, 16, 2, 8)), rank=1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    groups = ModelGroups(model, optimizer)
    names = [group.name for group in groups]
    pairs = [(names[a], names[b]) for a, b in groups.adapters()]
    assert len(pairs) == 8
    assert all(a.endswith(".a.weight") and b == a.replace(".a.", ".b.") for a, b in pairs)
    with fslr.torch.Recorder(model, optimizer, every=1) as recorder:
        for _ in range(2):
            model(torch.randint(16, (4, 8))).square().mean().backward()
            optimizer.step()
    for point in recorder.profile("adapters").points:
        rates = [(point.unit_rates[a], point.unit_rates[b]) for a, b in groups.adapters()]
        assert all(a == b > 0 for a, b in rates)  # A has a rate although B starts at 0


class Unnamed(nn.Module):
    """An adapted layer whose names say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.one, self.two = frozen(), linear(8, 2), linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.layer(x) + self.two(self.one(x))
        return changed


def test_factors_that_are_found_by_shape_have_the_kinds_of_adapters() -> None:
    model = nn.Sequential(nn.Linear(4, 8), Unnamed(), nn.Linear(6, 3))
    trained = {name: p for name, p in model.named_parameters() if p.dim() > 1 and p.requires_grad}
    kinds = [description.kind for description in describe(model, list(trained.values()))]
    assert dict(zip(trained, kinds, strict=True)) == {
        "0.weight": 10,  # input
        "1.one.weight": 8,  # adapter A
        "1.two.weight": 9,  # adapter B
        "2.weight": 3,  # readout
    }


def test_shapes_of_factors() -> None:
    for step in (1, -1):  # either layout
        a, b = (2, 8)[::step], (6, 2)[::step]
        assert is_low_rank(a, b, inputs=8, outputs=6)
        assert not is_low_rank(a, b, inputs=6, outputs=8)
        assert not is_low_rank((6, 8)[::step], (6, 6))
    assert not is_low_rank((2, 8), (2, 6))  # layouts that differ
    assert not is_low_rank((2, 8, 1), (6, 2))


def test_a_factor_is_in_one_pair_only() -> None:
    assert all_pairs([(0, 1)], [(1, 0), (2, 3), (1, 4)]) == [(0, 1), (2, 3)]
