"""Layouts of real models: each maps onto itself, and onto deeper and shallower ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advisor.policy import DepthRule, Group, Layout, LayoutMapping, Match, map_layout

Build = Callable[[int], nn.Module]


def _model(kind: str, depth_name: str, **options: Any) -> Build:
    def build(depth: int) -> nn.Module:
        import transformers as hf  # takes seconds, so not at collection

        config = getattr(hf, f"{kind}Config")(**options, **{depth_name: depth})
        with torch.device("meta"):
            model: nn.Module = getattr(hf, f"{kind}Model")(config)
            return model

    return build


def _staged(kind: str, **options: Any) -> Build:
    def build(depth: int) -> nn.Module:
        import transformers as hf

        config = getattr(hf, f"{kind}Config")(**options, depths=[2, 2, depth, 2])
        with torch.device("meta"):
            model: nn.Module = getattr(hf, f"{kind}Model")(config)
            return model

    return build


_WIDTHS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
_LAYERS = "num_hidden_layers"
MODELS: dict[str, Build] = {
    "GPT-2": _model("GPT2", "n_layer", n_embd=32, n_head=2, vocab_size=64),
    "Llama": _model("Llama", _LAYERS, num_key_value_heads=2, vocab_size=64, **_WIDTHS),
    "BERT": _model("Bert", _LAYERS, vocab_size=64, **_WIDTHS),
    "T5": _model("T5", "num_layers", d_model=32, d_kv=16, d_ff=64, num_heads=2, vocab_size=64),
    "Mixtral": _model(
        "Mixtral", _LAYERS, num_key_value_heads=2, num_local_experts=4, vocab_size=64, **_WIDTHS
    ),
    "ViT": _model("ViT", _LAYERS, **_WIDTHS),
    "Mamba": _model("Mamba", _LAYERS, hidden_size=32, vocab_size=64),
    "XLNet": _model("XLNet", "n_layer", d_model=32, n_head=2, d_inner=64, vocab_size=64),
    "ResNet": _staged("ResNet", embedding_size=8, hidden_sizes=[8, 16, 32, 64]),
    "ConvNeXt": _staged("ConvNext", hidden_sizes=[8, 16, 32, 64]),
    "Swin": _staged("Swin", embed_dim=8, num_heads=[1, 1, 1, 1]),
    "PoolFormer": _staged("PoolFormer", hidden_sizes=[8, 16, 32, 64]),
}


def layout(model: nn.Module) -> Layout:
    return Layout.of(
        Group(name, parameter_count=parameter.numel())
        for name, parameter in model.named_parameters()
    )


def _check_blocks_map_as_wholes(run: Layout, base: Layout, mapping: LayoutMapping) -> None:
    """Check that the tensors that all blocks have map each block onto the same base blocks."""
    base_blocks: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for i, place in enumerate(run.places):
        if len(place.rows) == 1 and place.rows[0].members == place.rows[0].alike:
            blocks = tuple(base.places[source].numbers[0] for source in mapping.sources_of(i))
            base_blocks.setdefault((place.role.split("*")[0], place.numbers[0]), set()).add(blocks)
    assert all(len(found) == 1 for found in base_blocks.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_maps_onto_itself_by_name(name: str) -> None:
    own = layout(MODELS[name](4))
    mapping = map_layout(own, own, DepthRule.SUM)
    assert set(mapping.matches) == {Match.NAME}
    assert mapping.sources.tolist() == list(range(len(own)))
    rates = np.arange(1.0, len(own) + 1)
    assert mapping.references(rates).tolist() == rates.tolist()


@pytest.mark.parametrize(("depth", "base_depth"), [(8, 4), (4, 8), (6, 4)])
@pytest.mark.parametrize("name", MODELS)
def test_a_deeper_or_shallower_model_maps_onto_tensors_of_the_same_shape(
    name: str, depth: int, base_depth: int
) -> None:
    run, base = MODELS[name](depth), MODELS[name](base_depth)
    mapping = map_layout(layout(run), layout(base), DepthRule.SUM)
    assert mapping.matched.all()
    shapes = [tuple(parameter.shape) for parameter in run.parameters()]
    base_shapes = [tuple(parameter.shape) for parameter in base.parameters()]
    for target, source in zip(mapping.targets, mapping.sources, strict=True):
        assert shapes[target] == base_shapes[source]
    _check_blocks_map_as_wholes(layout(run), layout(base), mapping)
    rates = np.linspace(1, 2, len(base_shapes))
    assert mapping.references(rates).sum() == pytest.approx(rates.sum())
