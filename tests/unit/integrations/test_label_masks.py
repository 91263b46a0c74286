"""The labels' mask is what each model's own loss looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.integrations.label_masks import label_mask
from tests.optional_packages import OptionalPackage

transformers, peft = OptionalPackage("transformers"), OptionalPackage("peft")

_TOKENS = torch.randint(4, 30, (2, 9), generator=torch.Generator().manual_seed(0))
_LABELS = torch.where(
    torch.tensor([[0, 1, 1, 0, 1, 1, 1, 0, 1], [1, 0, 1, 1] + [0] * 5]) > 0, 7, -100
)
_SMALL = {
    "vocab_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
_SEQ2SEQ = {
    "vocab_size": 32,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}


def _gpt2() -> nn.Module:
    model: nn.Module = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    )
    return model


def _peft() -> nn.Module:
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SMALL))
    wrapped: nn.Module = peft.get_peft_model(llama, config)
    return wrapped


_MODELS: dict[str, Callable[[], nn.Module]] = {
    "GPT-2": _gpt2,
    "Llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SMALL)),
    "Llama with LoRA": _peft,
    "BERT, masked": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**_SMALL)),
    "BERT, causal": lambda: transformers.BertLMHeadModel(
        transformers.BertConfig(**_SMALL, is_decoder=True)
    ),
    "tokens": lambda: transformers.BertForTokenClassification(
        transformers.BertConfig(**_SMALL, num_labels=9)
    ),
    "BART": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**_SEQ2SEQ)),
    "BART's decoder": lambda: transformers.BartForCausalLM(transformers.BartConfig(**_SEQ2SEQ)),
    "T5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
            decoder_start_token_id=0,
        )
    ),
    "XLNet": lambda: transformers.XLNetLMHeadModel(
        transformers.XLNetConfig(vocab_size=32, d_model=8, n_layer=1, n_head=2, d_inner=8)
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _MODELS)
def test_outputs_count_that_the_loss_of_the_model_depends_on(name: str) -> None:
    """The oracle is the gradient of the loss by the logits: 0 where nothing counts."""
    torch.manual_seed(0)
    model = _MODELS[name]()
    inputs = {"input_ids": _TOKENS, "labels": _LABELS}
    result = model(**inputs)
    (gradient,) = torch.autograd.grad(result.loss, result.logits)
    assert torch.equal(_counted(model, inputs, result), gradient.abs().sum(-1) > 0)


def _counted(model: nn.Module, inputs: Mapping[str, Any], result: Any) -> Tensor:
    mask = label_mask(model)
    assert callable(mask)
    counted = mask(inputs, result)
    assert counted is not None
    return counted


def test_classes_count_unless_they_are_ignored() -> None:
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**_SMALL))
    labels = torch.tensor([1, -100])
    inputs = {"input_ids": _TOKENS, "labels": labels}
    assert _counted(model, inputs, model(**inputs)).tolist() == [True, False]


def test_targets_of_a_regression_count_all() -> None:
    config = transformers.BertConfig(**_SMALL, num_labels=1)
    model = transformers.BertForSequenceClassification(config)
    inputs = {"input_ids": _TOKENS, "labels": torch.tensor([0.5, -100.0])}
    mask = label_mask(model)
    assert callable(mask)
    assert mask(inputs, model(**inputs)) is None


def test_a_call_without_labels_is_refused_with_a_remedy() -> None:
    mask = label_mask(_gpt2())
    assert callable(mask)
    with pytest.raises(
        MeasurementError, match=r"without labels \(its arguments are 'input_ids'\).*ignored_labels="
    ):
        mask({"input_ids": _TOKENS}, None)


def test_labels_of_another_shape_are_refused_with_a_remedy() -> None:
    model = _gpt2()
    mask = label_mask(model)
    assert callable(mask)
    result = model(input_ids=_TOKENS)
    with pytest.raises(MeasurementError, match=r"labels of shape \(2, 5\) .* \(2, 9, 32\)"):
        mask({"labels": _LABELS[:, :5]}, result)
