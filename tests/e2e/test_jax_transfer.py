"""A profile of a PyTorch training advises a training in Flax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import pytest

from benchmarks.cross_framework import Plan, record_in_pytorch, train_in_flax
from fslr.advisor.v1 import profile_pb2

PLAN = Plan(base_width=16, blocks=1, context=16, batch_size=8, steps=80, learning_rate=2.0**-5)


@pytest.fixture
def fast_compilation() -> Iterator[None]:
    """Optimize little: the model takes longer to compile than to train."""
    name = "jax_disable_most_optimizations"
    config: Any = jax.config
    before = config.values[name]
    config.update(name, True)
    yield
    config.update(name, before)


@pytest.fixture(scope="module")
def profile() -> profile_pb2.ProfileContent:
    return record_in_pytorch(PLAN)


@pytest.mark.usefixtures("fast_compilation")
@pytest.mark.compatibility("Flax linen", "advised")
def test_a_profile_from_pytorch_improves_a_four_times_wider_model_in_flax(
    profile: profile_pb2.ProfileContent,
) -> None:
    names = [group.name for group in profile.layout.groups]
    assert "blocks.0.attention.qkv.weight" in names
    plain, advised = train_in_flax(PLAN, None), train_in_flax(PLAN, profile)
    assert advised < plain
