"""Training loops with an accelerator: wrapped objects, accumulation, checkpoints, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import AttachError, RunInfo
from fslr.advisor.v1 import policy_pb2
from fslr.torch import MeasuringOptions
from tests.training_jobs import SpyAdvisor, wide

pytest.importorskip("accelerate", reason="needs the package accelerate")

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from fslr.integrations import accelerate as integration

POLICY = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)
_STEPS = 8


class Loop:
    """An advised and recorded training loop with accumulated gradients and a schedule."""

    def __init__(self, **how: Any) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, **how)
        model, optimizer, _ = wide()
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(
            model, optimizer, schedule
        )
        self.advisor = SpyAdvisor()
        self.attachment = integration.attach(
            self.accelerator,
            self.model,
            self.optimizer,
            profile="x",
            advisor=self.advisor,
            run=RunInfo(policy=POLICY),
            options=MeasuringOptions(averaging=0.5),
            answers="wait",
            max_overhead=None,
        )
        self.recorder = integration.record(self.accelerator, self.model, self.optimizer, every=3)

    def train(self, steps: range) -> None:
        for step in steps:
            for part in range(2):
                seed = torch.Generator().manual_seed(2 * step + part)
                tokens = torch.randint(0, 90, (4, 16), generator=seed)
                with self.accelerator.accumulate(self.model):
                    logits: Tensor = self.model(tokens)
                    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
                    self.accelerator.backward(loss)
                    self.optimizer.step()
                    self.schedule.step()
                    self.optimizer.zero_grad()

    @property
    def result(self) -> tuple[Any, ...]:
        points = self.recorder.profile().points
        weights = [parameter.detach().tolist() for parameter in self.model.parameters()]
        return self.attachment.multipliers, self.attachment.step, points, weights

    def close(self) -> None:
        self.attachment.close()
        self.recorder.close()


@pytest.mark.compatibility("Accelerate", "record", "advised", "resume", "accumulation")
def test_an_interrupted_loop_continues_as_the_whole_one(tmp_path: Path) -> None:
    whole = Loop()
    whole.train(range(_STEPS))
    first = Loop()
    first.train(range(3))
    first.accelerator.save_state(str(tmp_path))
    second = Loop()
    second.accelerator.load_state(str(tmp_path))
    second.train(range(3, _STEPS))
    assert second.result == whole.result
    assert [m.step for m in whole.advisor.measurements] == [0, 2, 4, 6]
    assert {m.examples for m in whole.advisor.measurements} == {8}  # both micro-batches
    assert second.advisor.measurements == whole.advisor.measurements[2:]
    for loop in (whole, first, second):
        loop.close()


@pytest.mark.compatibility("Accelerate", "mixed precision")
def test_a_loop_in_bfloat16_has_the_rates_of_one_in_float32() -> None:
    measured = []
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state()  # accelerators of one process share their precision
        loop = Loop(mixed_precision=precision)
        loop.train(range(1))
        loop.close()
        measured += loop.advisor.measurements
    AcceleratorState._reset_state()
    expected, found = measured
    assert found.unit_rates == pytest.approx(expected.unit_rates, rel=0.1)
    assert found.unit_rates != expected.unit_rates


def test_a_checkpoint_with_other_objects_is_refused() -> None:
    loop = Loop()
    entry = integration.CheckpointEntry(loop.recorder)
    with pytest.raises(AttachError, match=r"state of something else .* in the same order"):
        entry.load_state_dict(loop.schedule.state_dict())
    mixed = integration.CheckpointEntry(loop.attachment).state_dict()
    with pytest.raises(AttachError, match="belongs to an advised run, not to a recording"):
        entry.load_state_dict(mixed)
    loop.close()


def test_a_process_that_is_new_continues_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    loop.train(range(3))
    entry = integration.CheckpointEntry(loop.attachment)
    saved = entry.state_dict()
    loop.train(range(3, 5))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    entry.load_state_dict(saved)
    assert loop.attachment.step == 3
    loop.close()


@pytest.mark.compatibility(
    "DeepSpeed", "record", "advised", refused="its backward pass makes the step; use an export"
)
@pytest.mark.compatibility(
    "Megatron-LM", "record", "advised", refused="it steps by itself; use an export"
)
@pytest.mark.parametrize(
    ("kind", "name"),
    [(DistributedType.DEEPSPEED, "DeepSpeed"), (DistributedType.MEGATRON_LM, "Megatron-LM")],
)
def test_trainings_that_step_by_themselves_are_refused(
    kind: DistributedType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    model, optimizer, _ = wide()
    with pytest.raises(AttachError, match=rf"{name} makes .* `advisor export`"):
        integration.attach(accelerator, model, optimizer, profile="x")
    with pytest.raises(AttachError, match=rf"{name} makes .* `advisor export`"):
        integration.record(accelerator, model, optimizer)
