"""Callbacks of the Hugging Face ``Trainer``: advice, recordings, resuming, refusals."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fslr
from fslr import AttachError, MeasurementError, RunInfo
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions
from tests.spy_advisor import SpyAdvisor

pytest.importorskip("transformers", reason="needs the package transformers")

from transformers import TrainerCallback, TrainerControl, TrainerState

from fslr.integrations.transformers import AdviceCallback, RecorderCallback
from tests import hugging_face
from tests.hugging_face import StopAfter, gpt2, trainer, weights

POLICY = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)
_STATES = TrainerState(), TrainerControl()
_SGD: dict[str, Any] = {
    "optim": "sgd",
    "learning_rate": 1.0,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
    "max_steps": 1,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> profile_pb2.ProfileContent:
    """Return a profile of a small GPT-2 that a trainer recorded."""
    recorder = RecorderCallback(every=2, provenance=fslr.Provenance("small GPT-2", dataset="noise"))
    trainer(tmp_path_factory.mktemp("recorded"), recorder).train()
    return recorder.profile()


def advised(advisor: Any, **how: Any) -> AdviceCallback:
    how = {"run": RunInfo(policy=POLICY), "answers": "wait", "max_overhead": None, **how}
    return AdviceCallback(profile="x", advisor=advisor, **how)


@pytest.mark.compatibility("Hugging Face Trainer", "record", "observe only")
def test_a_recorded_training_is_bit_identical_and_its_profile_says_where_it_comes_from(
    tmp_path: Path,
) -> None:
    recorder = RecorderCallback(
        every=2,
        provenance=fslr.Provenance("a model", dataset="noise"),
        save_to=tmp_path / "profile.json",
    )
    plain = trainer(tmp_path, model=gpt2(dropout=0.1))
    plain.train()
    observed = trainer(tmp_path, recorder, model=gpt2(dropout=0.1))
    observed.train()
    for one, other in zip(weights(plain.model), weights(observed.model), strict=True):
        assert torch.equal(one, other)
    content = recorder.profile()
    assert [point.step for point in content.points] == [0, 2, 4]
    assert content.total_steps == 6
    assert content.mask == "without_ignored_labels"
    assert content.base_learning_rate == pytest.approx(1e-2)
    found = content.provenance
    assert (found.width, found.depth, found.batch_size) == (16, 1, 4)
    assert (found.model, found.optimizer) == ("a model", "AdamW")
    assert fslr.load_profile(tmp_path / "profile.json").points == content.points


@pytest.mark.compatibility("Hugging Face Trainer", "advised")
def test_each_tensor_steps_with_its_multiplier(tmp_path: Path) -> None:
    """The first step of SGD is the gradient times the learning rate, so steps can be compared."""
    before = weights(gpt2())
    plain = trainer(tmp_path, **_SGD)
    plain.train()
    multipliers = [2.0 ** -(place % 4) for place in range(len(before))]
    scaled = trainer(tmp_path, advised(FakeAdvisor(multipliers)), **_SGD)
    scaled.train()
    for old, one, other, multiplier in zip(
        before, weights(plain.model), weights(scaled.model), multipliers, strict=True
    ):
        assert torch.allclose(other - old, multiplier * (one - old), rtol=1e-3, atol=2e-7)


@pytest.mark.compatibility("Hugging Face Trainer", "weight decay")
@pytest.mark.parametrize("rule", ["INDEPENDENT", "COUPLED"])
def test_the_policys_rule_says_what_multipliers_do_to_weight_decay(
    tmp_path: Path, rule: str
) -> None:
    how = {**_SGD, "optim": "adamw_torch", "learning_rate": 1e-2, "weight_decay": 5.0}
    before = weights(gpt2())
    plain = trainer(tmp_path, **how)
    plain.train()
    advisor = FakeAdvisor(
        0.25, weight_decay=policy_pb2.WeightDecayRule.Value(f"WEIGHT_DECAY_RULE_{rule}")
    )
    scaled = trainer(tmp_path, advised(advisor), **how)
    scaled.train()
    trained = plain.model
    assert trained is not None
    decayed = plain.get_decay_parameter_names(trained)
    assert len(decayed) < len(before)  # biases and norms do not decay
    for (name, _), old, one, other in zip(
        trained.named_parameters(),
        before,
        weights(plain.model),
        weights(scaled.model),
        strict=True,
    ):
        kept = -1e-2 * 5.0 * old if name in decayed and rule == "INDEPENDENT" else 0.0
        expected = 0.25 * (one - old - kept) + kept
        assert torch.allclose(other - old, expected, rtol=1e-3, atol=2e-7), name


@pytest.mark.compatibility("Hugging Face Trainer", "mixed precision")
def test_a_training_in_bfloat16_has_the_rates_of_one_in_float32(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    recorder = RecorderCallback(every=2)
    trainer(tmp_path, recorder, bf16=True, max_steps=1).train()
    assert recorder.recorder is not None
    assert not recorder.recorder.slow_groups
    assert recorder.profile().points[0].unit_rates == pytest.approx(
        recorded.points[0].unit_rates, rel=0.1
    )
    assert recorder.profile().points[0].unit_rates != recorded.points[0].unit_rates


@pytest.mark.compatibility("Hugging Face Trainer", "accumulation")
def test_a_step_is_measured_on_the_labeled_outputs_of_all_its_micro_batches(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    advisor = SpyAdvisor(recorded)
    callback = advised(advisor)
    done = trainer(tmp_path, callback, gradient_accumulation_steps=3)
    done.train()
    assert [m.step for m in advisor.measurements] == [0, 2, 4]
    assert {m.examples for m in advisor.measurements} == {12}
    assert {m.mask for m in advisor.measurements} == {"without_ignored_labels"}
    # The schedule falls to 0 over the 6 steps.
    rates = [m.learning_rates[0] for m in advisor.measurements]
    assert rates == pytest.approx([1e-2, 1e-2 * 4 / 6, 1e-2 * 2 / 6])
    assert callback.attachment is not None
    assert callback.attachment.step == 6
    assert callback.attachment.failures == 0


def test_the_advisor_hears_of_losses_and_the_trainers_log_of_multipliers(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    advisor = SpyAdvisor(recorded)
    callback = advised(advisor)
    done = trainer(tmp_path, callback)
    done.train()
    logged = [line for line in done.state.log_history if "loss" in line]
    assert [line["step"] for line in logged] == [2, 4, 6]
    assert [m.loss for m in advisor.measurements[1:]] == pytest.approx([
        line["loss"] for line in logged[:-1]
    ])
    assert callback.attachment is not None
    multipliers = callback.attachment.multipliers
    assert logged[-1]["fslr/multiplier_min"] == min(multipliers)
    assert logged[-1]["fslr/multiplier_max"] == max(multipliers)
    assert logged[-1]["fslr/total_rate"] == pytest.approx(advisor.measurements[-1].total_rate)
    assert "fslr/total_rate" not in done.state.log_history[-1]  # the metrics of the whole training


class Resumable:
    """One advised and recorded training, whole or in two parts.

    Args:
        folder: The output folder.
        content: The profile.
    """

    def __init__(self, folder: Path, content: profile_pb2.ProfileContent) -> None:
        self.folder, self.content = folder, content
        self.advisors: list[SpyAdvisor] = []

    def part(self, *callbacks: Any, model: nn.Module | None = None, **how: Any) -> Any:
        self.advisors.append(SpyAdvisor(self.content))
        resume_from = how.pop("resume_from", None)
        self.advice = advised(
            self.advisors[-1],
            options=MeasuringOptions(averaging=0.5),
            resume_from=resume_from,
        )
        self.recorder = RecorderCallback(every=3, resume_from=resume_from)
        return trainer(
            self.folder, self.advice, self.recorder, *callbacks, model=model, max_steps=9, **how
        )

    @property
    def result(self) -> tuple[Any, ...]:
        assert self.advice.attachment is not None
        return (
            [m.SerializeToString() for advisor in self.advisors for m in _without_losses(advisor)],
            self.advice.attachment.multipliers,
            self.advice.attachment.step,
            self.recorder.profile().points,
        )


class Evaluating(TrainerCallback):
    """Lets a trainer evaluate after each step."""

    def on_step_end(self, *states: Any, **_: Any) -> Any:
        states[2].should_evaluate = True
        return states[2]


@pytest.mark.parametrize("run", ["night", ""])
def test_metrics_of_evaluations_are_stored_with_a_named_run(
    run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    advisor = FakeAdvisor()
    callback = advised(advisor, run=RunInfo(run, policy=POLICY))
    training = trainer(tmp_path, callback, Evaluating(), max_steps=2)
    training.eval_dataset = hugging_face.examples()
    training.train()
    steps = [(report.step, sorted(report.values)) for report in advisor.metrics]
    assert steps == ([(1, ["eval_loss"]), (2, ["eval_loss"])] if run else [])
    assert "report_metrics" not in caplog.text


def _without_losses(advisor: SpyAdvisor) -> list[Any]:
    """Return measurements without losses: a trainer that stops logs its last loss otherwise."""
    for measurement in advisor.measurements:
        measurement.ClearField("loss")
    return list(advisor.measurements)


@pytest.mark.compatibility("Hugging Face Trainer", "resume")
def test_an_interrupted_training_continues_as_the_whole_one(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    whole, halves = Resumable(tmp_path / "a", recorded), Resumable(tmp_path / "b", recorded)
    done = whole.part(model=gpt2(dropout=0.1))
    done.train()
    halves.part(StopAfter(5), model=gpt2(dropout=0.1)).train()
    # The weights come from the checkpoint.
    resumed = halves.part(model=gpt2(dropout=0.1).apply(_spoil))
    resumed.train(resume_from_checkpoint=True)
    assert halves.result == whole.result
    for one, other in zip(weights(done.model), weights(resumed.model), strict=True):
        assert torch.equal(one, other)


def _spoil(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


@pytest.mark.parametrize("named", ["argument", "callback"])
def test_a_checkpoint_of_another_folder_is_found_if_it_is_named(
    recorded: profile_pb2.ProfileContent, tmp_path: Path, named: str
) -> None:
    first, second = Resumable(tmp_path / "a", recorded), Resumable(tmp_path / "b", recorded)
    first.part(StopAfter(3)).train()
    checkpoint = str(tmp_path / "a" / "checkpoint-3")
    # The output folder has a checkpoint of the same step, but of a different training.
    second.part(StopAfter(3), learning_rate=0.05).train()
    how: dict[str, Any] = {"resume_from": checkpoint} if named == "callback" else {}
    resumed = second.part(StopAfter(4), resume_from_checkpoint=checkpoint, **how)
    if named == "callback":
        resumed.args.resume_from_checkpoint = None
    resumed.train(resume_from_checkpoint=checkpoint)
    assert first.advice.attachment is not None
    assert second.advice.attachment is not None
    assert second.advice.attachment.step == 4
    assert [m.step for m in second.advisors[-1].measurements] == []  # steps 0 and 2 are past
    assert second.advice.attachment.multipliers == first.advice.attachment.multipliers


def test_a_training_that_resumes_without_a_state_measures_anew_from_its_step(
    recorded: profile_pb2.ProfileContent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, StopAfter(3)).train()
    advisor = SpyAdvisor(recorded)
    with caplog.at_level(logging.WARNING, "fslr"):
        trainer(tmp_path, advised(advisor)).train(resume_from_checkpoint=True)
    assert [m.step for m in advisor.measurements] == [3, 5]
    assert "resumes at step 3, and no state of this callback was found" in caplog.text


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(
    recorded: profile_pb2.ProfileContent,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "checkpoint-2" / "fslr_attachment.pt").mkdir(parents=True)
    callback = advised(SpyAdvisor(recorded))
    with caplog.at_level(logging.WARNING, "fslr"):
        trainer(tmp_path, callback, save_strategy="steps", save_steps=2, max_steps=3).train()
    assert callback.attachment is not None
    assert callback.attachment.step == 3
    assert "fslr_attachment.pt was not saved" in caplog.text


def test_a_second_training_attaches_anew_also_after_an_exception(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    class Failing(TrainerCallback):
        fails = True

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if self.fails:
                raise KeyboardInterrupt

    failing, callback = Failing(), advised(SpyAdvisor(recorded))
    twice = trainer(tmp_path, callback, failing)
    with pytest.raises(KeyboardInterrupt):
        twice.train()
    first, failing.fails = callback.attachment, False
    twice.train()
    assert callback.attachment is not first
    assert callback.attachment is not None
    assert callback.attachment.step == 6


def test_labels_that_the_model_does_not_see_are_refused_with_a_remedy(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    def loss(outputs: Any, labels: Tensor, **_: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())

    with pytest.raises(AttachError, match=r"with label_smoothing_factor .*ignored_labels=False"):
        trainer(tmp_path, advised(SpyAdvisor(recorded)), label_smoothing_factor=0.1).train()
    hidden = trainer(tmp_path, advised(SpyAdvisor(recorded)))
    hidden.compute_loss_func = loss
    with pytest.raises(MeasurementError, match=r"called without labels .*ignored_labels=False"):
        hidden.train()
    advisor = SpyAdvisor(recorded)
    hidden = trainer(tmp_path, advised(advisor, ignored_labels=False))
    hidden.compute_loss_func = loss
    hidden.train()
    assert {m.mask for m in advisor.measurements} == {""}


@pytest.mark.compatibility(
    "DeepSpeed", "record", "advised", refused="its backward pass makes the step; use an export"
)
def test_deepspeed_is_refused_with_a_pointer_to_exports(tmp_path: Path) -> None:
    args: Any = hugging_face.arguments(tmp_path)
    args.deepspeed = {"zero_optimization": {"stage": 2}}
    for callback in (advised(FakeAdvisor()), RecorderCallback()):
        with pytest.raises(AttachError, match=r"under DeepSpeed .* `advisor export"):
            callback.on_init_end(args, *_STATES)
    args = SimpleNamespace(**{**vars(hugging_face.arguments(tmp_path)), "n_gpu": 1})
    args.distributed_state = SimpleNamespace(distributed_type="DistributedType.DEEPSPEED")
    with pytest.raises(AttachError, match="under DeepSpeed"):
        RecorderCallback().on_init_end(args, *_STATES)


@pytest.mark.parametrize("optim", ["galore_adamw_layerwise", "adalomo"])
def test_optimizers_that_step_in_the_backward_pass_are_refused(optim: str, tmp_path: Path) -> None:
    with pytest.raises(AttachError, match=rf"optim='{optim}' steps each tensor inside"):
        trainer(tmp_path, RecorderCallback(), optim=optim)


def test_replicas_in_one_process_are_refused(tmp_path: Path) -> None:
    args = hugging_face.arguments(tmp_path)
    args._n_gpu = 2
    with pytest.raises(AttachError, match=r"over 2 devices .* torchrun --nproc-per-node 2"):
        RecorderCallback().on_init_end(args, *_STATES)


def test_a_profile_before_the_training_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"has not begun; call trainer.train\(\) first"):
        RecorderCallback().profile()


def test_a_profile_without_a_measurement_is_not_saved_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = RecorderCallback(save_to=tmp_path / "profile.json")
    with caplog.at_level(logging.WARNING, "fslr"):
        trainer(tmp_path, recorder, learning_rate=0.0, max_steps=1).train()
    assert "the profile was not saved to" in caplog.text
    assert "no step was measured" in caplog.text


@pytest.mark.parametrize("module", ["label_masks", "transformers"])
def test_without_transformers_the_import_says_how_to_install_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.delitem(sys.modules, f"fslr.integrations.{module}")
    with pytest.raises(ImportError, match=r"needs transformers 5\.0 or newer: pip install 'fslr"):
        importlib.import_module(f"fslr.integrations.{module}")
