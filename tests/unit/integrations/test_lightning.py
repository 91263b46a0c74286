"""Callbacks of Lightning: which network is watched, steps, checkpoints, refusals."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fslr
from fslr import AttachError, MeasurementError, RunInfo
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions
from tests.spy_advisor import SpyAdvisor

pytest.importorskip("lightning", reason="needs the package lightning")

from fslr.integrations.lightning import AdviceCallback, RecorderCallback
from tests.lightning_modules import (
    Bypassing,
    Manual,
    TwoNets,
    WithForward,
    equal_batches,
    loader,
    net,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and warm starts
POLICY = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> profile_pb2.ProfileContent:
    """Return a profile of a small network that a trainer recorded."""
    recorder = RecorderCallback(every=2, provenance=fslr.Provenance("net", width=16, depth=1))
    trainer(tmp_path_factory.mktemp("recorded"), recorder).fit(Bypassing(), loader())
    return recorder.profile()


def advised(advisor: Any, **how: Any) -> AdviceCallback:
    how = {"run": RunInfo(policy=POLICY), "answers": "wait", "max_overhead": None, **how}
    return AdviceCallback(profile="x", advisor=advisor, **how)


def weights(module: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.compatibility("Lightning", "record", "observe only")
def test_a_recorded_training_is_bit_identical(tmp_path: Path) -> None:
    recorder = RecorderCallback(every=2, provenance="net", save_to=tmp_path / "profile.json")
    plain, observed = Bypassing(), Bypassing()
    trainer(tmp_path).fit(plain, loader())
    trainer(tmp_path, recorder).fit(observed, loader())
    for one, other in zip(weights(plain), weights(observed), strict=True):
        assert torch.equal(one, other)
    content = recorder.profile()
    assert [point.step for point in content.points] == [0, 2, 4]
    assert content.total_steps == 6
    # The names are those of the network, so a plain PyTorch training can use the profile.
    assert [g.name for g in content.layout.groups] == [name for name, _ in net().named_parameters()]
    assert fslr.load_profile(tmp_path / "profile.json").points == content.points


@pytest.mark.compatibility("Lightning", "mixed precision")
def test_a_training_in_bfloat16_has_the_rates_of_one_in_float32(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    recorder = RecorderCallback(every=2)
    trainer(tmp_path, recorder, precision="bf16-mixed", max_steps=1).fit(Bypassing(), loader())
    found, expected = recorder.profile().points[0], recorded.points[0]
    assert found.unit_rates == pytest.approx(expected.unit_rates, rel=0.1)
    assert found.unit_rates != expected.unit_rates


@pytest.mark.compatibility("Lightning", "advised")
def test_each_tensor_steps_with_its_multiplier(tmp_path: Path) -> None:
    """The first step of Adam has the size of the learning rate, so steps can be compared."""
    multipliers = [1.0, 0.5, 0.25, 2.0]
    plain, scaled = Bypassing(), Bypassing()
    trainer(tmp_path, max_steps=1).fit(plain, loader())
    trainer(tmp_path, advised(FakeAdvisor(multipliers)), max_steps=1).fit(scaled, loader())
    for before, one, other, multiplier in zip(
        weights(Bypassing()), weights(plain), weights(scaled), multipliers, strict=True
    ):
        assert torch.allclose(other - before, multiplier * (one - before), rtol=1e-3, atol=2e-6)


@pytest.mark.compatibility("Lightning", "accumulation", "trackers")
def test_steps_in_closures_are_measured_on_all_their_micro_batches(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    advisor = SpyAdvisor(recorded)
    callback = advised(advisor)
    done = trainer(tmp_path, callback, accumulate_grad_batches=2, logger=True, max_epochs=1)
    module = Bypassing()
    done.fit(module, loader())
    assert callback.attachment is not None
    assert [m.step for m in advisor.measurements] == [0, 2, 4]
    assert {m.examples for m in advisor.measurements} == {16}
    assert callback.attachment.step == 6
    assert callback.attachment.failures == 0
    rates = [m.learning_rates[0] for m in advisor.measurements]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(0.01)
    assert advisor.measurements[-1].loss > 0
    multipliers = callback.attachment.multipliers
    assert done.callback_metrics["fslr/multiplier_max"] == pytest.approx(max(multipliers))
    assert done.callback_metrics["fslr/total_rate"] == pytest.approx(
        advisor.measurements[-1].total_rate
    )


class Validating(Bypassing):
    """Logs a metric when it validates."""

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val_loss", self.training_step(batch))


def test_metrics_of_validations_are_stored_with_a_named_run(tmp_path: Path) -> None:
    advisor = FakeAdvisor()
    callback = advised(advisor, run=RunInfo("night", policy=POLICY))
    trainer(tmp_path, callback, max_steps=2, val_check_interval=1).fit(
        Validating(), loader(), loader()
    )
    stored = [(report.step, "val_loss" in report.values) for report in advisor.metrics]
    assert stored == [(1, True), (2, True)]


def test_two_optimizers_of_one_network_make_one_step(tmp_path: Path) -> None:
    advisor = FakeAdvisor(interval_steps=2)
    callback = advised(advisor)
    trainer(tmp_path, callback, max_steps=12).fit(Manual(), loader())
    assert callback.attachment is not None
    assert callback.attachment.step == 6
    assert [m.step for m in advisor.measurements] == [0, 2, 4]
    assert all(rate > 0 for m in advisor.measurements for rate in m.unit_rates)


def test_each_of_two_networks_has_its_own_callback(tmp_path: Path) -> None:
    first, second = RecorderCallback(net="encoder", every=1), RecorderCallback(net="decoder")
    trainer(tmp_path, first, second, max_steps=8).fit(TwoNets(), loader())
    assert first.state_key != second.state_key
    for recorder, names in ((first, 4), (second, 2)):
        content = recorder.profile()
        assert len(content.layout.groups) == names
        assert content.total_steps == 4
    assert len(first.profile().points) == 4


def test_a_module_with_several_parts_is_watched_as_a_whole_if_it_has_a_forward(
    tmp_path: Path,
) -> None:
    recorder = RecorderCallback(every=2)
    trainer(tmp_path, recorder).fit(WithForward(), loader())
    names = [group.name for group in recorder.profile().layout.groups]
    assert names == ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert len(recorder.profile().points) == 3


def test_a_network_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(AttachError, match=r"several parts .*'encoder', 'decoder'.* net=\.\.\."):
        trainer(tmp_path, RecorderCallback()).fit(TwoNets(), loader())
    with pytest.raises(AttachError, match=r"net='generator' is not a part of TwoNets.*'encoder'"):
        trainer(tmp_path, RecorderCallback(net="generator")).fit(TwoNets(), loader())
    with pytest.raises(AttachError, match=r"no optimizer updates a parameter of 'net\.1'"):
        trainer(tmp_path, RecorderCallback(net="net.1")).fit(Bypassing(), loader())


@pytest.mark.compatibility("Lightning", "resume")
def test_an_interrupted_training_continues_as_the_whole_one(
    recorded: profile_pb2.ProfileContent, tmp_path: Path
) -> None:
    def part(steps: int, advisor: SpyAdvisor, resume: str | None = None) -> tuple[Any, ...]:
        info = RunInfo(policy=POLICY, total_steps=9)
        advice = advised(advisor, options=MeasuringOptions(averaging=0.5), run=info)
        recorder = RecorderCallback(every=3)
        module = Bypassing()
        run = trainer(tmp_path, advice, recorder, max_steps=steps)
        run.fit(module, equal_batches(), ckpt_path=resume)
        run.save_checkpoint(tmp_path / "last.ckpt")
        assert advice.attachment is not None
        found = advice.attachment.multipliers, advice.attachment.step, recorder.profile().points
        return *found, [tensor.tolist() for tensor in weights(module)]

    whole, halves = SpyAdvisor(recorded), SpyAdvisor(recorded)
    expected = part(9, whole)
    part(5, halves)
    assert part(9, halves, str(tmp_path / "last.ckpt")) == expected
    assert [m.step for m in halves.measurements] == [0, 2, 4, 6, 8]
    for one, other in zip(whole.measurements, halves.measurements, strict=True):
        assert one.unit_rates == other.unit_rates


def test_a_training_that_resumes_without_a_state_measures_anew_from_its_step(
    recorded: profile_pb2.ProfileContent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = trainer(tmp_path, max_steps=3)
    first.fit(Bypassing(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    advisor = SpyAdvisor(recorded)
    with caplog.at_level(logging.WARNING, "fslr"):
        trainer(tmp_path, advised(advisor)).fit(
            Bypassing(), loader(), ckpt_path=str(tmp_path / "last.ckpt")
        )
    assert [m.step for m in advisor.measurements] == [3, 5]
    assert "resumes at step 3 from a checkpoint without a state" in caplog.text


def test_a_training_that_fails_is_detached(tmp_path: Path) -> None:
    class Failing(Bypassing):
        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            if self.global_step == 2:
                raise OSError("the disk is gone")
            return super().training_step(batch)

    module, recorder = Failing(), RecorderCallback(every=1)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer(tmp_path, recorder).fit(module, loader())
    assert len(recorder.profile().points) == 2
    assert not module.net._forward_pre_hooks


@pytest.mark.compatibility(
    "DeepSpeed", "record", refused="its backward pass makes the step; use an export"
)
def test_deepspeed_and_another_package_are_refused(tmp_path: Path) -> None:
    class DeepSpeedStrategy:
        pass

    callback, run = RecorderCallback(), trainer(tmp_path)
    run._accelerator_connector.strategy = DeepSpeedStrategy()
    with pytest.raises(AttachError, match=r"DeepSpeedStrategy: .* `advisor export"):
        callback.setup(run, Bypassing(), "fit")
    callback.setup(run, Bypassing(), "validate")  # nothing steps
    with pytest.raises(AttachError, match=r"of lightning\.pytorch, and the trainer .* one package"):
        callback.setup(SimpleNamespace(strategy=None), Bypassing(), "fit")


def test_a_profile_before_the_training_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"has not begun; call trainer.fit\(\) first"):
        RecorderCallback().profile()


def test_options_that_do_not_exist_or_are_missing_are_refused_at_once() -> None:
    unknown: Any = {"profil": "gpt"}
    with pytest.raises(TypeError, match=r"AdviceCallback has no option 'profil'; .* profile, advi"):
        AdviceCallback(**unknown)
    with pytest.raises(TypeError, match="AdviceCallback needs the option 'profile'"):
        AdviceCallback()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"RecorderCallback has no option 'profil'; .* every, den"):
        RecorderCallback(**unknown)
