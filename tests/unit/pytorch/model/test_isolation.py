"""Weights, buffers and random generators after a measurement."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fslr.torch.model.isolation import isolated, swapped_weights


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
