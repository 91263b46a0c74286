"""A run of Weights & Biases, offline: its own file has what a training logged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fslr import AttachError
from fslr.integrations.wandb import WandbListener
from tests.optional_packages import OptionalPackage
from tests.unit.integrations.listened_training import MEASURED, STEPS, train
from tests.wandb_files import rows_of

wandb = OptionalPackage("wandb")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    settings = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False)
    started = wandb.init(mode="offline", project="test", dir=tmp_path, settings=settings)
    yield started
    started.finish()


def rows(run: Any) -> list[dict[str, Any]]:
    """Finish a run, and return the rows of its history."""
    (file,) = Path(run.dir).parent.glob("*.wandb")
    run.finish()
    return rows_of(file)


@pytest.mark.compatibility("PyTorch loop", "trackers")
def test_numbers_join_the_rows_of_the_loop(run: Any) -> None:
    train(WandbListener(), on_step=lambda step: run.log({"loss": 1.0}, step=step))
    assert run.summary["fslr/last_warning"] == "the batch size differs from the profile's"
    assert run.summary["fslr/multiplier/2.bias"] == 4.0
    found = rows(run)
    assert [(row["_step"], row["loss"]) for row in found] == [(step, 1.0) for step in range(STEPS)]
    assert [row["fslr/step"] for row in found if "fslr/total_rate" in row] == MEASURED


def test_every_event_has_a_row_if_it_is_committed(run: Any) -> None:
    train(WandbListener(run, commit=True, groups=()))
    found = rows(run)
    assert [row["fslr/step"] for row in found if "fslr/measuring_s" in row] == MEASURED
    assert not any("fslr/rate/" in name for row in found for name in row)


def test_without_a_run_the_error_says_to_start_one() -> None:
    assert wandb.run is None
    with pytest.raises(AttachError, match=r"no W&B run; call wandb\.init\(\) before, or pass its"):
        WandbListener()
