"""Trackers of the Hugging Face ``Trainer``, which it calls before a user's callbacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fslr import AttachError, RunInfo
from fslr.advisor.v1 import policy_pb2
from tests.building import content_message
from tests.spy_advisor import SpyAdvisor

pytest.importorskip("transformers", reason="needs the package transformers")
pytest.importorskip("tensorboard", reason="needs the package tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fslr.integrations.transformers import AdviceCallback, RecorderCallback
from tests.hugging_face import gpt2, trainer

_HEAD = "transformer.ln_f.weight"
_LOSS_STEPS = [2, 4, 6]


@pytest.mark.compatibility("Hugging Face Trainer", "trackers")
def test_trackers_of_the_trainer_get_the_numbers_of_each_group_and_printed_lines_stay_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "charts"))
    names = [name for name, _ in gpt2().named_parameters()]
    advisor = SpyAdvisor(content_message(names, rate=0.3))
    callback = AdviceCallback(
        profile="x",
        advisor=advisor,
        run=RunInfo(policy=policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)),
        answers="wait",
        max_overhead=None,
    )
    done = trainer(tmp_path, callback, report_to=["tensorboard"])
    callback.log_to_trackers(done, groups=("*.ln_f.*",))
    done.train()
    read = EventAccumulator(str(tmp_path / "charts")).Reload()
    assert callback.attachment is not None
    place = names.index(_HEAD)
    for what, expected in (
        ("rate", [m.unit_rates[place] * m.learning_rates[place] for m in advisor.measurements]),
        ("share", [m.shares[place] for m in advisor.measurements]),
    ):
        found = read.Scalars(f"train/fslr/{what}/{_HEAD}")
        assert [each.step for each in found] == _LOSS_STEPS
        factors = [m.multipliers[place] if what == "rate" else 1 for m in advisor.measurements]
        values = [value * factor for value, factor in zip(expected, factors, strict=True)]
        assert [each.value for each in found] == pytest.approx(values, rel=1e-4)
    last = read.Scalars(f"train/fslr/multiplier/{_HEAD}")[-1]
    assert last.value == pytest.approx(callback.attachment.multipliers[place])
    assert [each.step for each in read.Scalars("train/fslr/total_rate")] == _LOSS_STEPS
    tags = set(read.Tags()["scalars"])
    assert "train/fslr/overhead" in tags
    assert not any("wte" in tag for tag in tags)  # not one of the chosen groups
    assert not any("fslr/" in tag and tag.startswith("eval") for tag in tags)
    printed = capsys.readouterr().out
    assert printed.count("fslr/total_rate") == len(_LOSS_STEPS)
    assert "fslr/rate" not in printed
    assert "fslr/overhead" not in printed
    assert not any("fslr/rate" in name for line in done.state.log_history for name in line)


def test_a_callback_of_a_different_trainer_is_refused(tmp_path: Path) -> None:
    callback = RecorderCallback()
    with pytest.raises(AttachError, match=r"this RecorderCallback is not a callback of the train"):
        callback.log_to_trackers(trainer(tmp_path))
