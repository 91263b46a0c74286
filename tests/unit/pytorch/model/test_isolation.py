"""Weights, buffers and random generators after a measurement."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fslr.torch.model.isolation import isolated, swapped_weights


class FailingSets(TorchFunctionMode):
    """Lets ``tensor.data = ...`` fail for one tensor, a number of times."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor, self.times = tensor, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        setter: Any = Tensor.data.__set__  # type: ignore[attr-defined]
        if func == setter and args[0] is self.tensor and self.times:
            self.times -= 1
            raise RuntimeError("no room")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_weight_that_cannot_be_restored_keeps_no_other_from_it(which: int, times: int) -> None:
    weights = [nn.Parameter(torch.randn(2)) for _ in range(3)]
    before = [weight.data_ptr() for weight in weights]
    with (
        FailingSets(weights[which]) as failing,
        pytest.raises(RuntimeError, match="no room"),
        swapped_weights({weight: torch.ones(2) for weight in weights}),
    ):
        failing.times = times
    restored = [weight.data_ptr() == there for weight, there in zip(weights, before, strict=True)]
    assert restored == [place != which or times == 1 for place in range(3)]


def test_swapped_weights_are_restored_bit_identical_after_an_exception() -> None:
    layer = nn.Linear(3, 2)
    weight: nn.Parameter = layer.weight  # type: ignore[assignment]
    original, pointer = layer.weight.detach().clone(), layer.weight.data_ptr()
    version = layer.weight._version
    with (
        pytest.raises(RuntimeError, match="inside"),
        swapped_weights({weight: torch.ones(2, 3)}),
    ):
        assert torch.equal(layer.weight, torch.ones(2, 3))
        raise RuntimeError("inside")
    assert torch.equal(layer.weight, original)
    assert (layer.weight.data_ptr(), layer.weight._version) == (pointer, version)


def test_buffers_and_random_generators_are_restored_after_an_exception() -> None:
    norm = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    buffers = {name: (b, b.clone()) for name, b in norm.named_buffers()}
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), isolated(norm):
        norm(torch.randn(8, 3))
        raise RuntimeError("inside")
    for name, buffer in norm.named_buffers():
        same, value = buffers[name]
        assert buffer is same
        assert torch.equal(buffer, value)
    assert torch.equal(torch.get_rng_state(), state)


def test_generators_that_modules_own_are_restored() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Identity())
    owned: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "of_torch": (torch.Generator().manual_seed(1), lambda g: torch.rand(1, generator=g).item()),
        "of_python": (random.Random(1), lambda g: g.random()),
        "of_numpy": (np.random.default_rng(1), lambda g: g.random()),
        "legacy": (np.random.RandomState(1), lambda g: g.random_sample()),
    }
    for name, (generator, _) in owned.items():
        setattr(model[1], name, generator)

    def drawn() -> list[float]:
        return [draw(getattr(model[1], name)) for name, (_, draw) in owned.items()]

    with isolated(model):
        inside = drawn()
        assert drawn() != inside
    assert drawn() == inside
