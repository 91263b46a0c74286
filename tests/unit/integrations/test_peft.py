"""LoRA: a profile of one rank serves a different rank, with each adapter's own groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from fslr.advisor.v1 import policy_pb2, profile_pb2
from tests.hugging_face import examples, gpt2
from tests.optional_packages import OptionalPackage

peft = OptionalPackage("peft")

# PEFT uses a name that transformers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
_OPTIONS = fslr.torch.MeasuringOptions(output="logits")


def adapted(rank: int) -> nn.Module:
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=["c_attn"],
        r=rank,
        lora_alpha=2 * rank,
        fan_in_fan_out=True,
    )
    torch.manual_seed(1)
    model: nn.Module = peft.get_peft_model(gpt2(blocks=2), config)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    tokens = torch.stack([example["input_ids"] for example in examples(8)])
    for _ in range(steps):
        loss: Tensor = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def trained(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def recorded(rank: int) -> profile_pb2.ProfileContent:
    model = adapted(rank)
    optimizer = trained(model)
    with fslr.torch.Recorder(model, optimizer, every=2, options=_OPTIONS) as recorder:
        train(model, optimizer, 6)
    content: profile_pb2.ProfileContent = recorder.profile("GPT-2 with LoRA")
    return content


@pytest.mark.compatibility("LoRA with PEFT", "record", "advised")
def test_all_adapters_of_another_rank_have_a_counterpart_and_are_advised() -> None:
    content = recorded(rank=4)
    names = [group.name for group in content.layout.groups]
    assert len(names) == 4
    assert all("lora_A" in name or "lora_B" in name for name in names)
    model = adapted(rank=16)
    optimizer = trained(model)
    policy = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=2)
    with fslr.torch.attach(
        model,
        optimizer,
        profile="lora",
        advisor=InProcessAdvisor(content),
        run=fslr.RunInfo(policy=policy),
        options=_OPTIONS,
        answers="wait",
        max_overhead=None,
    ) as attachment:
        train(model, optimizer, 8)
    advice = attachment.by_name()
    assert list(advice) == names
    assert attachment.failures == 0
    assert not attachment.slow_groups
    for name, group in advice.items():
        assert group.reference, name  # each has a counterpart
        assert group.outcome != "unmatched"
    assert all(group.unit_rate for group in advice.values())
    found = attachment.multipliers
    assert found[::2] == found[1::2]  # both factors of an adapter
    assert len(set(found)) == 2


def test_both_factors_of_an_adapter_have_one_rate_and_one_multiplier_from_the_first_step_on() -> (
    None
):
    """B starts at 0, so a step of A alone changes no output at first."""
    content = recorded(rank=4)
    names = [group.name for group in content.layout.groups]
    pairs = [(names.index(a), names.index(a.replace("lora_A", "lora_B"))) for a in names[::2]]
    assert len(pairs) == 2
    for point in content.points:
        for a, b in pairs:
            assert point.unit_rates[a] == point.unit_rates[b] > 0


@pytest.mark.compatibility("LoRA with PEFT", "observe only")
def test_a_recorded_training_of_adapters_is_bit_identical() -> None:
    plain, watched = adapted(4), adapted(4)
    train(plain, trained(plain), 3)
    optimizer = trained(watched)
    with fslr.torch.Recorder(watched, optimizer, every=1, options=_OPTIONS) as recorder:
        train(watched, optimizer, 3)
    assert len(recorder.profile("GPT-2 with LoRA").points) == 3
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
