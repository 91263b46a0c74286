"""Layouts of transformers, written down by hand."""

from __future__ import annotations

import math

from advisor.policy import DepthRule, Group, GroupKind, Layout, map_layout
from advisor.recipes import Field, Ratio, Recipe, RecipeFactors, apply_recipe

_HEAD_SIZE = 16
_VOCABULARY = 128


def transformer(
    width: int,
    depth: int,
    *,
    expansion: int = 4,
    optimizer_of_matrices: str = "",
    rms: float = 0.5,
) -> Layout:
    """Return the layout of a transformer with biases, norms of queries, and a readout.

    Args:
        width: Size of the residual stream.
        depth: Number of blocks.
        expansion: Width of the MLP over that of the stream.
        optimizer_of_matrices: The optimizer of the matrices of blocks, if it is not the run's.
        rms: Initial RMS of all groups.
    """

    def matrix(name: str, fan_in: int, fan_out: int) -> Group:
        return Group(
            name,
            shape=(fan_out, fan_in),
            fan_in=fan_in,
            fan_out=fan_out,
            kind=GroupKind.HIDDEN,
            optimizer=optimizer_of_matrices,
        )

    def vector(name: str, size: int) -> Group:
        return Group(name, shape=(size,), fan_in=1, fan_out=size, kind=GroupKind.VECTOR)

    table = Group(
        "tokens.weight", shape=(_VOCABULARY, width), fan_in=_VOCABULARY, fan_out=width,
        kind=GroupKind.EMBEDDING,
    )  # fmt: skip
    groups = [table]
    for i in range(depth):
        block = f"blocks.{i}"
        groups += [
            vector(f"{block}.norm.weight", width),
            matrix(f"{block}.attn.qkv.weight", width, 3 * width),
            vector(f"{block}.attn.qkv.bias", 3 * width),
            vector(f"{block}.attn.q_norm.weight", _HEAD_SIZE),
            matrix(f"{block}.attn.out_proj.weight", width, width),
            vector(f"{block}.attn.out_proj.bias", width),
            matrix(f"{block}.mlp.fc1.weight", width, expansion * width),
            matrix(f"{block}.mlp.fc2.weight", expansion * width, width),
        ]
    groups += [
        vector("norm.weight", width),
        Group(
            "head.weight", shape=(_VOCABULARY, width), fan_in=width, fan_out=_VOCABULARY,
            kind=GroupKind.READOUT,
        ),
    ]  # fmt: skip
    return Layout.of(groups, initial_rms=[rms] * len(groups))


def mixture(
    width: int, depth: int, *, channels: int = 3, optimizer_of_matrices: str = ""
) -> Layout:
    """Return the layout of a model of images with the kinds that a transformer of text lacks.

    Args:
        width: Channels of the residual stream.
        depth: Number of blocks: two convolutions, a router and two experts.
        channels: Channels of an image.
        optimizer_of_matrices: The optimizer of the matrices of blocks, if it is not the run's.
    """

    def layer(name: str, kind: GroupKind, *shape: int, output: bool | None = None) -> Group:
        fan_out, fan_in, *kernel = shape
        size = math.prod(kernel)
        is_matrix = kind in {GroupKind.CONVOLUTION, GroupKind.EXPERT}
        return Group(
            name,
            shape=shape,
            fan_in=fan_in * size,
            fan_out=fan_out * size,
            kind=kind,
            residual_output=output,
            optimizer=optimizer_of_matrices if is_matrix else "",
        )

    groups = [layer("stem.weight", GroupKind.INPUT, width, channels, 4, 4)]
    for i in range(depth):
        block = f"blocks.{i}"
        convolution, expert = GroupKind.CONVOLUTION, GroupKind.EXPERT
        groups += [
            layer(f"{block}.conv1.weight", convolution, 2 * width, width, 3, 3),
            layer(f"{block}.conv2.weight", convolution, width, 2 * width, 3, 3, output=True),
            layer(f"{block}.moe.router.weight", GroupKind.ROUTER, 2, width),
        ]
        for expert_name in (f"{block}.moe.experts.{j}" for j in range(2)):
            groups += [
                layer(f"{expert_name}.w1.weight", expert, 4 * width, width),
                layer(f"{expert_name}.w2.weight", expert, width, 4 * width),
            ]
    groups.append(layer("head.weight", GroupKind.READOUT, _VOCABULARY, width))
    return Layout.of(groups, initial_rms=[0.5] * len(groups))


def applied(
    recipe: Recipe,
    run: Layout,
    base: Layout,
    *,
    optimizer: str = "",
    given: dict[Ratio, float] | None = None,
) -> RecipeFactors:
    """Apply a recipe to a run."""
    mapping = map_layout(run, base, DepthRule.SUM)
    return apply_recipe(recipe, run, base, mapping, optimizer=optimizer, given=given)


def factors_of(applied_recipe: RecipeFactors, layout: Layout, name: str) -> dict[Field, float]:
    """Return all factors of a group that are not 1."""
    index = [group.name for group in layout.groups].index(name)
    found = {field: float(values[index]) for field, values in applied_recipe.factors.items()}
    return {field: value for field, value in found.items() if value != 1}
