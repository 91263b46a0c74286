"""A local store of MLflow has what a training logged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fslr import AttachError
from fslr.integrations.mlflow import MlflowListener
from tests.optional_packages import OptionalPackage
from tests.unit.integrations.listened_training import MEASURED, train

mlflow = OptionalPackage("mlflow")


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the database needs more packages
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'runs'}")
    yield
    mlflow.end_run()


@pytest.mark.compatibility("PyTorch loop", "trackers")
def test_the_active_run_gets_metrics_and_the_last_warning() -> None:
    with mlflow.start_run() as run:
        listener = MlflowListener()
        train(listener, names=("up", "block[down]"))
        listener.close()
        mlflow.log_metric("loss", 1.0)
    client = mlflow.MlflowClient()
    stored = client.get_run(run.info.run_id).data
    assert stored.metrics["fslr/multiplier/up.weight"] == 0.5
    assert stored.metrics["fslr/failures"] == 1.0
    assert "fslr/rate/block_down_.bias" in stored.metrics  # MLflow refuses brackets
    assert stored.tags["fslr/last_warning"] == "the batch size differs from the profile's"
    history = client.get_metric_history(run.info.run_id, "fslr/total_rate")
    assert sorted(each.step for each in history) == MEASURED  # threads write them


def test_a_run_can_be_named() -> None:
    run = mlflow.MlflowClient().create_run("0")
    listener = MlflowListener(run.info.run_id, groups=())
    train(listener)
    listener.close()
    metrics = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
    assert "fslr/multiplier_max" in metrics
    assert not any(name.startswith("fslr/rate/") for name in metrics)


def test_without_a_run_the_error_says_to_start_one() -> None:
    with pytest.raises(AttachError, match=r"no MLflow run is active; call mlflow\.start_run\(\)"):
        MlflowListener()
