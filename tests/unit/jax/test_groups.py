"""What layouts say of parameters: names, shapes, fans, kinds and initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from fslr.advisor.v1 import layout_pb2
from fslr.jax.groups import ModelGroups
from fslr.jax.model_forms import form_of


def described(model: Any, stacked: dict[str, int] | None = None) -> dict[str, Any]:
    """Return the groups of a layout by name."""
    form = form_of(model)
    groups = ModelGroups(model, form, stacked)
    return {group.name: group for group in groups.layout(form.split(model).params).groups}


def kinds(groups: dict[str, Any]) -> dict[str, str]:
    names = layout_pb2.GroupKind.Name
    return {
        name: names(group.kind).removeprefix("GROUP_KIND_").lower()
        for name, group in groups.items()
    }


def zeros(*shape: int) -> jax.Array:
    return jnp.zeros(shape)


TRANSFORMER = {
    "params": {
        "tokens": {"embedding": zeros(50, 16)},
        "pos_embed": zeros(1, 32, 16),
        "blocks_0": {
            "norm1": {"scale": zeros(16), "bias": zeros(16)},
            "attention": {
                "query": {"kernel": zeros(16, 4, 4), "bias": zeros(4, 4)},
                "out": {"kernel": zeros(4, 4, 16), "bias": zeros(16)},
            },
            "mlp": {"up": {"kernel": zeros(16, 64)}, "down": {"kernel": zeros(64, 16)}},
            "moe": {"gate": {"kernel": zeros(16, 4)}, "experts": {"up": zeros(4, 16, 64)}},
            "lora_a": zeros(16, 2),
            "lora_b": zeros(2, 16),
        },
        "head": {"kernel": zeros(16, 50)},
    }
}


def test_parameters_of_a_transformer_of_linen_are_described_by_their_names() -> None:
    groups = described(TRANSFORMER)
    assert {name.removeprefix("params."): kind for name, kind in kinds(groups).items()} == {
        "tokens.embedding": "embedding",
        "pos_embed": "embedding",
        "blocks_0.norm1.scale": "vector",
        "blocks_0.norm1.bias": "vector",
        "blocks_0.attention.query.kernel": "hidden",
        "blocks_0.attention.query.bias": "vector",
        "blocks_0.attention.out.kernel": "hidden",
        "blocks_0.attention.out.bias": "vector",
        "blocks_0.mlp.up.kernel": "hidden",
        "blocks_0.mlp.down.kernel": "hidden",
        "blocks_0.moe.gate.kernel": "router",
        "blocks_0.moe.experts.up": "expert",
        "blocks_0.lora_a": "adapter_a",
        "blocks_0.lora_b": "adapter_b",
        "head.kernel": "readout",
    }
    fans = {
        name: (groups[f"params.{name}"].fan_in, groups[f"params.{name}"].fan_out)
        for name in (
            *("tokens.embedding", "blocks_0.mlp.up.kernel", "blocks_0.attention.query.kernel"),
            *("blocks_0.attention.out.kernel", "blocks_0.moe.experts.up", "head.kernel"),
        )
    }
    assert fans == {
        "tokens.embedding": (50, 16),
        "blocks_0.mlp.up.kernel": (16, 64),
        "blocks_0.attention.query.kernel": (16, 16),
        "blocks_0.attention.out.kernel": (16, 16),
        "blocks_0.moe.experts.up": (16, 64),
        "head.kernel": (16, 50),
    }


def test_numbered_layers_of_linen_have_an_order_and_sorted_names_have_none() -> None:
    numbered = {f"Dense_{i}": {"kernel": zeros(8, 8)} for i in (0, 10, 2)}
    assert kinds(described(numbered)) == {
        "Dense_0.kernel": "input",
        "Dense_10.kernel": "readout",
        "Dense_2.kernel": "hidden",
    }
    sorted_names = {"encoder": {"kernel": zeros(8, 8)}, "decoder": {"kernel": zeros(8, 8)}}
    assert set(kinds(described(sorted_names)).values()) == {"unspecified"}


@pytest.mark.parametrize("outputs", [1, 2])
def test_layers_of_plain_pytrees_are_known_by_their_order_also_with_one_output(
    outputs: int,
) -> None:
    shapes = [((1, 8), (8,)), ((8, 8), (8,)), ((8, outputs), (outputs,))]
    pairs = [(zeros(*weight), zeros(*bias)) for weight, bias in shapes]
    expected = {
        **{f"{number}.0": kind for number, kind in enumerate(("input", "hidden", "readout"))},
        **{f"{number}.1": "vector" for number in range(3)},
    }
    assert kinds(described(pairs)) == expected
    layers = [{"kernel_of_mine": weight, "b": bias} for weight, bias in pairs]
    for net in (layers, {"layers": layers}, {f"layer_{n}": pair for n, pair in enumerate(pairs)}):
        groups = described(net)
        assert sorted(kinds(groups).values()) == sorted(expected.values())
        (readout,) = (name for name, kind in kinds(groups).items() if kind == "readout")
        assert "2." in readout
        assert (groups[readout].fan_in, groups[readout].fan_out) == (8, outputs)


def test_a_gain_of_one_row_is_a_vector() -> None:
    shapes = {"gain": zeros(1, 8), "shift": zeros(8), "w1": zeros(8, 8)}
    assert kinds(described(shapes))["gain"] == "vector"


def test_convolutions_of_haiku_are_known_by_the_names_of_their_modules() -> None:
    net = {
        "net/conv2_d": {"w": zeros(3, 3, 8, 16), "b": zeros(16)},
        "net/linear": {"w": zeros(16, 1)},
    }
    groups = described(net)
    assert kinds(groups)["net/conv2_d.w"] == "convolution"
    assert (groups["net/conv2_d.w"].fan_in, groups["net/conv2_d.w"].fan_out) == (72, 144)
    assert kinds(groups)["net/linear.w"] != "vector"


def filled(build: Callable[[jax.Array], Any]) -> Any:
    """Return a module of Equinox full of ones; random weights take seconds to compile."""
    shapes = eqx.filter_eval_shape(build, jax.random.key(0))
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape) if is_shape(leaf) else leaf, shapes)  # type: ignore[no-untyped-call]


def test_convolutions_have_the_fans_of_their_framework() -> None:
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            ones = nnx.initializers.ones_init()
            self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs, kernel_init=ones)
            self.conv = nnx.Conv(8, 16, (3, 3), rngs=rngs, kernel_init=ones)
            self.head = nnx.Linear(16, 10, rngs=rngs, kernel_init=ones)

    groups = described(Net(nnx.Rngs(0)))
    assert kinds(groups)["stem.kernel"] == "input"
    assert kinds(groups)["conv.kernel"] == "convolution"
    assert (groups["conv.kernel"].fan_in, groups["conv.kernel"].fan_out) == (72, 144)
    assert groups["conv.kernel"].initial_rms > 0

    def layers(key: jax.Array) -> Any:
        stem, conv = eqx.nn.Conv2d(3, 8, 3, key=key), eqx.nn.Conv2d(8, 16, 3, key=key)
        return eqx.nn.Sequential([stem, conv, eqx.nn.Linear(16, 10, key=key)])

    groups = described(filled(layers))
    assert kinds(groups) == {
        "layers.0.weight": "input",
        "layers.0.bias": "vector",
        "layers.1.weight": "convolution",
        "layers.1.bias": "vector",
        "layers.2.weight": "readout",
        "layers.2.bias": "vector",
    }
    assert (groups["layers.1.weight"].fan_in, groups["layers.1.weight"].fan_out) == (72, 144)
    assert (groups["layers.2.weight"].fan_in, groups["layers.2.weight"].fan_out) == (16, 10)


def test_norms_and_embeddings_of_equinox_are_known_by_their_classes() -> None:
    class Net(eqx.Module):
        table: eqx.nn.Embedding
        first: eqx.nn.LayerNorm
        head: eqx.nn.Linear

    def net(key: jax.Array) -> Net:
        head = eqx.nn.Linear(16, 50, key=key)
        return Net(eqx.nn.Embedding(50, 16, key=key), eqx.nn.LayerNorm(16), head)

    assert kinds(described(filled(net))) == {
        "table.weight": "embedding",
        "first.weight": "vector",
        "first.bias": "vector",
        "head.weight": "readout",
        "head.bias": "vector",
    }


def test_layers_of_a_stacked_leaf_have_their_own_shape_and_initial_weights() -> None:
    leaf = jnp.stack([jnp.full((4, 6), 1.0), jnp.full((4, 6), 2.0)], axis=1)
    groups = described({"blocks": {"up": {"kernel": leaf}}}, {"blocks": 1})
    assert [group.name for group in groups.values()] == [
        "blocks.0.up.kernel",
        "blocks.1.up.kernel",
    ]
    assert [list(group.shape) for group in groups.values()] == [[4, 6]] * 2
    assert [group.initial_rms for group in groups.values()] == [1.0, 2.0]
    assert {kinds(groups)[name] for name in groups} == {"hidden"}


def test_shapes_without_values_have_no_initial_weights() -> None:
    shapes = jax.eval_shape(lambda: TRANSFORMER)
    groups = described(shapes)
    assert not any(group.HasField("initial_rms") for group in groups.values())
    assert groups["params.head.kernel"].parameter_count == 800


@pytest.mark.parametrize("count", [0, 1])
def test_weights_that_are_not_finite_have_no_initial_rms(count: int) -> None:
    leaf = jnp.full((2, 2), jnp.inf if count == 0 else 1.0)
    groups = described({"head": {"kernel": leaf}})
    assert groups["head.kernel"].HasField("initial_rms") is bool(count)
