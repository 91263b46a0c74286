"""Names of parameters in PyTorch, Flax linen, Flax nnx and Equinox."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from advisor.policy.aliases import GroupAlias
from advisor.policy.framework_spellings import FrameworkSpellings, common_spelling
from advisor.policy.layout import Layout
from advisor.policy.mapping import map_layout
from advisor.policy.rules import DepthRule, Match

# The first two are blocks.
PYTORCH = ("blocks.{}.attn.qkv.weight", "blocks.{}.norm1.weight", "tokens.weight", "head.bias")
NNX = ("blocks.{}.attn.qkv.kernel", "blocks.{}.norm1.scale", "tokens.embedding", "head.bias")
LINEN = tuple("params." + name.replace("blocks.", "blocks_") for name in NNX)
LINEN_PLAIN = tuple(name.removeprefix("params.") for name in LINEN)
SLASHES = tuple(name.replace(".", "/") for name in LINEN_PLAIN)
SPELLINGS = (PYTORCH, NNX, LINEN, LINEN_PLAIN, SLASHES)


def layout(names: tuple[str, ...], blocks: int) -> Layout:
    return Layout.of_names([
        *(name.format(block) for block in range(blocks) for name in names[:2]),
        *names[2:],
    ])


@pytest.mark.parametrize(("run", "base"), list(itertools.permutations(SPELLINGS, 2)))
def test_a_deeper_run_in_one_framework_maps_onto_a_profile_of_another(
    run: tuple[str, ...], base: tuple[str, ...]
) -> None:
    mapping = map_layout(layout(run, 4), layout(base, 2), DepthRule.COPY)
    assert Match.NONE not in mapping.matches
    references = mapping.references(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert references.tolist() == [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("params.Dense_0.kernel", "Dense.0.weight"),
        ("params/encoderblock_3/LayerNorm_0/scale", "encoderblock.3.LayerNorm.0.weight"),
        ("blocks_*.up.kernel", "blocks.*.up.weight"),
        ("layers.0.weight", "layers.0.weight"),
        ("norm1.scale", "norm1.weight"),
        ("kernel", "weight"),
        ("my_kernel", "my_kernel"),
        ("scale.kernel_2", "scale.kernel_2"),
    ],
)
def test_the_spelling_of_pytorch(name: str, spelled: str) -> None:
    assert common_spelling(name) == spelled


def test_a_name_that_fits_two_roles_is_left_alone() -> None:
    spellings = FrameworkSpellings(["norm.scale", "norm.kernel", "head.kernel"])
    assert spellings.rewritten("norm.weight") is None
    assert spellings.rewritten("head.weight") == "head.kernel"
    assert spellings.rewritten("other.weight") is None


def test_numbers_that_are_no_block_indices_must_be_equal() -> None:
    spellings = FrameworkSpellings(["mlp.0.weight", "mlp.2.weight"])
    assert spellings.rewritten("mlp_2.kernel") == "mlp.2.weight"
    assert spellings.rewritten("mlp_1.kernel") is None


def test_an_alias_of_the_profile_comes_first() -> None:
    base = Layout.of_names(["head.weight", "out.weight"])
    run = Layout.of_names(["head.kernel"])
    aliases = [GroupAlias("head.kernel", "out.weight")]
    mapping = map_layout(run, base, DepthRule.SUM, aliases=aliases)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [2.0]


def test_a_role_that_the_base_has_is_not_rewritten() -> None:
    base = Layout.of_names(["norm.scale", "norm.weight"])
    run = Layout.of_names(["norm.scale", "norm.weight"])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.matches == (Match.NAME, Match.NAME)
