"""TRL's ``SFTTrainer``, whose models compute their loss without logits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import fslr
from fslr.torch.calls.measured_modules import being_measured

pytest.importorskip("transformers", reason="needs the package transformers")

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback

from fslr.integrations.transformers import AdviceCallback, RecorderCallback
from fslr.testing import FakeAdvisor
from tests.hugging_face import PROMPT, VOCABULARY, examples, gpt2, trainer, weights
from tests.optional_packages import OptionalPackage

trl, datasets = OptionalPackage("trl"), OptionalPackage("datasets")


def tuner(folder: Path, *callbacks: TrainerCallback, max_steps: int = 3) -> Any:
    words = {f"t{number}": number for number in range(VOCABULARY - 2)}
    words |= {"<pad>": VOCABULARY - 2, "<eos>": VOCABULARY - 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<eos>",
    )
    data = [
        {
            "input_ids": example["input_ids"].tolist(),
            "completion_mask": [int(place >= PROMPT) for place in range(len(example["labels"]))],
        }
        for example in examples()
    ]
    config = trl.SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=max_steps,
        learning_rate=1e-2,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model: Any = gpt2()
    return trl.SFTTrainer(
        model,
        config,
        train_dataset=datasets.Dataset.from_list(data),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


@pytest.mark.compatibility("TRL", "record")
@pytest.mark.filterwarnings("ignore")
def test_a_fine_tuning_is_measured_as_the_same_training_of_a_plain_trainer(tmp_path: Path) -> None:
    provenance = fslr.Provenance("GPT-2", dataset="noise")
    tuned = RecorderCallback(every=1, provenance=provenance)
    plain = RecorderCallback(every=1, provenance=provenance)
    tuner(tmp_path, tuned).train()
    assert tuned.recorder is not None
    assert tuned.recorder.failures == 0
    assert not tuned.recorder.slow_groups
    trainer(tmp_path, plain, max_steps=3).train()
    found, expected = tuned.profile(), plain.profile()
    assert found.mask == expected.mask == "without_ignored_labels"
    for point, same in zip(found.points, expected.points, strict=True):
        ratios = [a / b for a, b in zip(point.unit_rates, same.unit_rates, strict=True)]
        assert max(abs(math.log(ratio)) for ratio in ratios) < 1e-3


@pytest.mark.compatibility("TRL", "advised")
@pytest.mark.filterwarnings("ignore")
def test_each_tensor_steps_with_its_multiplier(tmp_path: Path) -> None:
    """The first step of Adam has the size of the learning rate, so steps can be compared."""
    before = weights(gpt2())
    multipliers = [2.0 ** -(place % 4) for place in range(len(before))]
    plain = tuner(tmp_path, max_steps=1)
    plain.train()
    advice = AdviceCallback(profile="x", advisor=FakeAdvisor(multipliers))
    scaled = tuner(tmp_path, advice, max_steps=1)
    scaled.train()
    for old, one, other, multiplier in zip(
        before, weights(plain.model), weights(scaled.model), multipliers, strict=True
    ):
        assert torch.allclose(other - old, multiplier * (one - old), rtol=1e-3, atol=2e-6)


@pytest.mark.compatibility("TRL", "observe only")
@pytest.mark.filterwarnings("ignore")
def test_a_recorded_fine_tuning_is_bit_identical_and_ends_with_its_fused_head(
    tmp_path: Path,
) -> None:
    plain = tuner(tmp_path)
    plain.train()
    recorded = tuner(tmp_path, RecorderCallback(every=1))
    recorded.train()
    for one, other in zip(weights(plain.model), weights(recorded.model), strict=True):
        assert torch.equal(one, other)
    tokens = examples(1)[0]["input_ids"][None]
    with being_measured(recorded.model):
        result = recorded.model(input_ids=tokens, labels=tokens, fused_lm_head=True)
    assert not hasattr(result, "logits")
