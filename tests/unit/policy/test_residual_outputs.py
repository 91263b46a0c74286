"""Which groups write into the residual stream, by their names."""

from __future__ import annotations

import pytest

from advisor.policy import Group, GroupKind, Layout
from advisor.policy.residual_outputs import residual_outputs

_MODELS = {
    "Llama": (
        "model.layers.0.",
        "self_attn.o_proj.weight mlp.down_proj.weight",
        "self_attn.q_proj.weight mlp.gate_proj.weight mlp.up_proj.weight input_layernorm.weight",
    ),
    "original Llama": (
        "layers.0.",
        "attention.wo.weight feed_forward.w2.weight",
        "attention.wq.weight feed_forward.w1.weight feed_forward.w3.weight ffn_norm.weight",
    ),
    "GPT-2": (
        "transformer.h.0.",
        "attn.c_proj.weight attn.c_proj.bias mlp.c_proj.weight",
        "attn.c_attn.weight mlp.c_fc.weight ln_1.weight",
    ),
    "BERT": (
        "encoder.layer.0.",
        "attention.output.dense.weight output.dense.bias",
        "attention.self.query.weight intermediate.dense.weight output.LayerNorm.weight",
    ),
    "GPT-NeoX": (
        "layers.0.",
        "attention.dense.weight mlp.dense_4h_to_h.weight",
        "attention.query_key_value.weight mlp.dense_h_to_4h.weight",
    ),
    "T5": (
        "encoder.block.0.",
        "layer.0.SelfAttention.o.weight layer.1.DenseReluDense.wo.weight",
        "layer.0.SelfAttention.q.weight layer.1.DenseReluDense.wi.weight layer.0.layer_norm.weight",
    ),
    "Mixtral": (
        "layers.0.",
        "block_sparse_moe.experts.0.w2.weight mlp.experts.down_proj",
        "block_sparse_moe.experts.0.w1.weight moe.gate.weight mlp.experts.gate_up_proj",
    ),
    "experts in sequence": (
        "layers.0.",
        "experts.0.2.weight experts.1.2.bias experts.1.2.weight experts.0.2.bias",
        "experts.0.0.weight experts.1.0.weight router.weight",
    ),
    "timm": (
        "blocks.0.",
        "attn.proj.weight mlp.fc2.bias",
        "attn.qkv.weight mlp.fc1.weight norm1.weight ls1.gamma",
    ),
    "torchvision": (
        "encoder.layers.encoder_layer_0.",
        "self_attention.out_proj.weight mlp.3.weight mlp.3.bias",
        "self_attention.in_proj_weight mlp.0.weight ln_1.weight",
    ),
    "torch": (
        "layers.0.",
        "self_attn.out_proj.bias linear2.weight",
        "self_attn.in_proj_weight linear1.weight norm2.bias",
    ),
    "diffusers": (
        "transformer_blocks.0.",
        "attn1.to_out.0.weight ff.net.2.weight",
        "attn1.to_q.weight ff.net.0.proj.weight",
    ),
    "Flax": (
        "Transformer/encoderblock_0/",
        "MultiHeadDotProductAttention_0/out/kernel MlpBlock_0/Dense_1/kernel",
        "MultiHeadDotProductAttention_0/query/kernel MlpBlock_0/Dense_0/kernel LayerNorm_0/scale",
    ),
    "Mamba": (
        "backbone.layers.0.",
        "mixer.out_proj.weight",
        "mixer.in_proj.weight mixer.x_proj.weight mixer.A_log",
    ),
    "Megatron": (
        "decoder.layers.0.",
        "self_attention.linear_proj.weight mlp.linear_fc2.weight",
        "self_attention.linear_qkv.weight mlp.linear_fc1.weight",
    ),
    "PEFT": ("layers.0.", "o_proj.weight", "o_proj.lora_A.weight o_proj.lora_B.weight"),
    "short": (
        "blocks.0.",
        "attn.out.weight mlp.down.weight",
        "attn.qkv.weight mlp.up.weight norm.weight",
    ),
}


def written(groups: list[Group]) -> set[str]:
    layout = Layout.of(groups)
    flags = residual_outputs(layout)
    return {group.name for group, flag in zip(groups, flags, strict=True) if flag}


@pytest.mark.parametrize("model", list(_MODELS))
def test_residual_outputs_are_found_by_their_names(model: str) -> None:
    prefix, outputs, others = _MODELS[model]
    wanted = {prefix + name for name in outputs.split()}
    rest = {prefix + name for name in others.split()}
    assert written([Group(name) for name in [*wanted, *rest, f"{prefix}0.unused.weight"]]) == wanted


def test_only_groups_of_blocks_write_into_a_stream() -> None:
    assert written([Group("pooler.out_proj.weight"), Group("patch_embed.proj.weight")]) == set()
    assert written([Group("out_proj.weight", role="out_proj.weight", depth_count=3)]) == {
        "out_proj.weight"
    }


def test_convolutions_and_their_biases_do_not_by_name() -> None:
    names = ["layer1.0.se.fc2.weight", "layer1.0.se.fc2.bias"]
    kinds = [GroupKind.CONVOLUTION, GroupKind.VECTOR]
    assert written([Group(n, kind=k) for n, k in zip(names, kinds, strict=True)]) == set()


def test_what_a_layout_states_counts() -> None:
    groups = [
        Group("blocks.0.a.weight", residual_output=True),
        Group("blocks.0.out_proj.weight", residual_output=False),
    ]
    assert written(groups) == {"blocks.0.a.weight"}


def test_wrappers_do_not_hide_a_name() -> None:
    name = "module._orig_mod.layers.0._fsdp_wrapped_module.mlp.down_proj.weight"
    assert written([Group(name)]) == {name}
