"""The examples, run as users run them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::FutureWarning:fslr", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_hugging_face_example_prints_a_table_and_saves_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    chart = tmp_path / "charts" / "shares.png"
    done = example(
        "examples/measure_hf_model.py", "--steps", "11", "--examples", "4", "--out", str(chart)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for expected in ("relative error", "wte.weight", "%", "Slow groups: none."):
        assert expected in done.stdout
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
    done = example(
        "examples/hugging_face_trainer.py", "--steps", "6", "--width", "48", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for expected in ("width 32, recorded:", "width 48, with advice:", "step 6, 28 groups"):
        assert expected in done.stdout
    assert "fslr/multiplier_max" in done.stdout
    assert (tmp_path / "gpt2.json").exists()


def test_the_accelerate_example_resumes_with_its_advice(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    done = example(
        "examples/accelerate_loop.py", "--steps", "8", "--width", "96", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for expected in ("width 64, recorded:", "width 96, with advice:", "step 8, 7 groups"):
        assert expected in done.stdout


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
    done = example(
        "examples/lightning_module.py", "--steps", "6", "--width", "96", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for expected in ("width 64, recorded:", "width 96, with advice:", "step 6, 7 groups"):
        assert expected in done.stdout
