"""Trainers that train one model on two processes, over gloo: advice, checkpoints, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fork_server import TRAINERS, run_trainings
from tests.redis_servers import free_port

_TIMEOUT_S = 250


def job(kind: str, folder: Path) -> list[dict[str, Any]]:
    """Run a job, and return the printed result of each rank."""
    port = str(free_port())
    commands = [("tests.trainer_job", kind, rank, port, str(folder)) for rank in ("0", "1")]
    printed = run_trainings(commands, timeout_s=_TIMEOUT_S, kind=TRAINERS)
    return [json.loads(output.splitlines()[-1]) for output in printed]


@pytest.mark.compatibility("Hugging Face Trainer", "resume", "several processes")
def test_ranks_of_a_hugging_face_trainer_are_advised_and_resume_as_one(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the package transformers")
    first, second = job("hugging-face", tmp_path)
    assert first["whole"] == second["whole"]
    assert first["whole"]["failures"] == 0
    assert first["whole"]["examples"] == 4  # two on each rank
    assert len(set(first["whole"]["multipliers"])) > 3
    assert first["resumed"] == second["resumed"] == first["whole"]
    assert first["saved"] == ["fslr_attachment.pt", "fslr_attachment_1.pt"]


@pytest.mark.compatibility("Lightning", "resume", "several processes")
def test_ranks_of_a_lightning_trainer_are_advised_and_resume_as_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="needs the package lightning")
    first, second = job("lightning", tmp_path)
    assert first["whole"] == second["whole"]
    assert first["whole"]["failures"] == 0
    assert first["whole"]["examples"] == 16  # eight on each rank
    assert len(set(first["whole"]["multipliers"])) > 1
    assert first["resumed"] == second["resumed"] == first["whole"]
