"""Randomly initialized Hugging Face models, with and without LoRA, against the exact oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.measuring import assert_converges, measurable

# peft uses deprecated names of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def hf() -> Any:
    """Import transformers, which takes seconds, only when a test needs it."""
    return pytest.importorskip("transformers")


_TEXT = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}


def tokens(length: int = 7) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(1, 31, (6, length))}


def masked_tokens() -> dict[str, Tensor]:
    inputs = tokens()
    mask = torch.ones_like(inputs["input_ids"])
    mask[:3, 5:] = 0
    return {**inputs, "attention_mask": mask}


def gpt2() -> nn.Module:
    config = hf().GPT2Config(
        vocab_size=31,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model: nn.Module = hf().GPT2LMHeadModel(config)
    return model


def llama() -> nn.Module:
    config = hf().LlamaConfig(**_TEXT, num_key_value_heads=1, use_cache=False)
    model: nn.Module = hf().LlamaForCausalLM(config)
    return model


def bert() -> nn.Module:
    model: nn.Module = hf().BertForMaskedLM(
        hf().BertConfig(**_TEXT, attention_probs_dropout_prob=0.0)
    )
    return model


def vit() -> nn.Module:
    config = hf().ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        num_labels=5,
    )
    model: nn.Module = hf().ViTForImageClassification(config)
    return model


def t5() -> nn.Module:
    config = hf().T5Config(
        vocab_size=31,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        use_cache=False,
    )
    model: nn.Module = hf().T5ForConditionalGeneration(config)
    return model


def mixtral() -> nn.Module:
    config = hf().MixtralConfig(
        **_TEXT, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2, use_cache=False
    )
    config._experts_implementation = "eager"  # the grouped matmul has no forward-mode derivative
    model: nn.Module = hf().MixtralForCausalLM(config)
    return model


def with_lora(model: nn.Module, *targets: str) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=list(targets),
        fan_in_fan_out=isinstance(model, hf().GPT2LMHeadModel),
    )
    adapted: nn.Module = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # initialized to zero, and then lora_A would have no effect
            nn.init.normal_(parameter, std=0.1)
    return adapted


def images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(6, 3, 8, 8)}


def pairs() -> dict[str, Tensor]:
    return {**masked_tokens(), "labels": torch.randint(1, 31, (6, 5))}


# A model, its inputs, and parts of the names of groups that take a slow route.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]], tuple[str, ...]]] = {
    "GPT-2": (gpt2, tokens, ()),
    "GPT-2, padded": (gpt2, masked_tokens, ()),
    "Llama": (llama, masked_tokens, ()),
    "BERT": (bert, masked_tokens, ()),
    "ViT": (vit, images, ()),
    "T5": (t5, pairs, ()),
    "Mixtral": (mixtral, tokens, ("experts",)),
    "LoRA on GPT-2": (lambda: with_lora(gpt2(), "c_attn", "c_proj"), tokens, ()),
    "LoRA on Llama": (lambda: with_lora(llama(), "q_proj", "v_proj"), tokens, ()),
}


@pytest.mark.parametrize("case", MODELS)
def test_rates_converge_to_the_exact_ones(case: str) -> None:
    torch.manual_seed(0)
    make, inputs, slow = MODELS[case]
    model = make().train()
    for module in model.modules():  # the kernels of the oracle draw different masks
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    measured = measurable(model, inputs(), output="logits")
    assert len(measured.groups) == sum(p.requires_grad for p in model.parameters())
    assert_converges(measured)
    estimator = measured.estimator()
    estimator.estimate(measured.batch, measured.update)
    assert all(any(part in name for part in slow) for name in estimator.slow_groups)
