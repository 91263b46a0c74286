"""The examples run, and print what they say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.fork_server import TRAINERS, run_trainings

_ROOT = Path(__file__).parents[2]


def example(name: str, *arguments: str) -> str:
    """Run an example in a process that has the trainers imported, and return its output."""
    (printed,) = run_trainings([(f"examples.{name}", *arguments)], timeout_s=250, kind=TRAINERS)
    return printed


def test_the_hugging_face_example_prints_a_table_and_saves_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    chart = tmp_path / "charts" / "shares.png"
    printed = example("measure_hf_model", "--steps", "11", "--examples", "4", "--out", str(chart))
    for expected in ("relative error", "wte.weight", "%", "Slow groups: none."):
        assert expected in printed
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_hugging_face_example_without_steps_fails_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    chart = str(tmp_path / "shares.png")
    monkeypatch.setattr(sys, "argv", ["measure_hf_model.py", "--steps", "0", "--out", chart])
    with pytest.raises(SystemExit, match="train for a step at least"):
        runpy.run_path(str(_ROOT / "examples/measure_hf_model.py"), run_name="__main__")


def test_the_trainer_example_records_a_profile_and_trains_with_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    printed = example(
        "hugging_face_trainer", "--steps", "6", "--width", "48", "--out", str(tmp_path)
    )
    for expected in ("width 32, recorded:", "width 48, with advice:", "step 6, 28 groups"):
        assert expected in printed
    assert "fslr/multiplier_max" in printed
    assert (tmp_path / "gpt2.json").exists()


def test_the_accelerate_example_resumes_with_its_advice(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    printed = example("accelerate_loop", "--steps", "8", "--width", "96", "--out", str(tmp_path))
    for expected in ("width 64, recorded:", "width 96, with advice:", "step 8, 7 groups"):
        assert expected in printed


def test_the_tracker_example_draws_a_bar_and_writes_to_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="the example writes TensorBoard's files")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(
        sys, "argv", ["log_to_tensorboard.py", "--steps", "12", "--out", str(tmp_path)]
    )
    runpy.run_path(str(_ROOT / "examples/log_to_tensorboard.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "12/12" in printed
    assert f"tensorboard --logdir {tmp_path}" in printed.replace("\n", "")
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in read.Tensors("fslr/total_rate")] == [0, 5, 10]
    assert "fslr/share/0.weight" in read.Tags()["tensors"]


def test_the_lightning_example_trains_with_the_recorded_profile(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    printed = example("lightning_module", "--steps", "6", "--width", "96", "--out", str(tmp_path))
    for expected in ("width 64, recorded:", "width 96, with advice:", "step 6, 7 groups"):
        assert expected in printed
