"""The examples run, and print what they say."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fork_server import TRAINERS, run_trainings
from tests.wandb_files import rows_of

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


def test_the_trl_example_records_a_profile_and_trains_with_it(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the example trains with TRL")
    printed = example("trl_sft", "--steps", "6", "--width", "48", "--out", str(tmp_path))
    for expected in ("width 32, recorded:", "width 48, with advice:", "step 6, 28 groups"):
        assert expected in printed


def test_the_lora_example_advises_all_adapters_of_a_higher_rank() -> None:
    pytest.importorskip("peft", reason="the example trains adapters of PEFT")
    printed = example("lora_across_ranks", "--steps", "6")
    for expected in ("rank 4, recorded:", "rank 64, same learning rate:", "rank 64, with advice:"):
        assert expected in printed
    assert len(re.findall(r"h\.[01]\.\S+ +multiplier \S+ \(", printed)) == 8


def test_the_accelerate_example_resumes_with_its_advice(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    printed = example("accelerate_loop", "--steps", "8", "--width", "96", "--out", str(tmp_path))
    for expected in ("width 64, recorded:", "width 96, with advice:", "step 8, 7 groups"):
        assert expected in printed


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_the_tracker_example_draws_a_bar_and_writes_what_the_tracker_reads(
    tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracker, reason="the example writes files of this tracker")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = tmp_path / "tracked"
    options = ("--tracker", tracker, "--steps", "12", "--out", str(folder))
    printed = example("log_to_trackers", *options)
    assert "12/12" in printed
    assert str(folder) in printed.splitlines()[-1]
    measured, losses = _READERS[tracker](folder)
    assert measured == [0, 5, 10]
    assert losses == 12


def _tensorboard(folder: Path) -> tuple[list[int], int]:
    """Return the measured steps, and the number of losses."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    assert "fslr/share/0.weight" in read.Tags()["tensors"]
    return [each.step for each in read.Tensors("fslr/total_rate")], len(read.Tensors("loss"))


def _wandb(folder: Path) -> tuple[list[int], int]:
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows = [row for row in rows_of(file) if "loss" in row]
    assert "fslr/share/0.weight" in rows[0]
    return [row["fslr/step"] for row in rows if "fslr/total_rate" in row], len(rows)


def _mlflow(folder: Path) -> tuple[list[int], int]:
    (metrics,) = folder.glob("0/*/metrics")
    lines = (metrics / "fslr/total_rate").read_text("utf-8").splitlines()
    losses = (metrics / "loss").read_text("utf-8").splitlines()
    return sorted(int(line.split()[2]) for line in lines), len(losses)


_READERS: dict[str, Callable[[Path], tuple[list[int], int]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def test_the_lightning_example_trains_with_the_recorded_profile(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    printed = example("lightning_module", "--steps", "6", "--width", "96", "--out", str(tmp_path))
    for expected in ("width 64, recorded:", "width 96, with advice:", "step 6, 7 groups"):
        assert expected in printed
