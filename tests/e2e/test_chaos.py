"""A short run of the fault injection: clients work while parts of a deployment fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, int], str]:
    """Run the command; return its exit status, the figures of its last line, and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--quick", "--out", str(folder), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=FOLDER,
        timeout=250,
    )
    output = done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), output


@pytest.mark.long
def test_no_guarantee_is_broken_under_faults(tmp_path: Path) -> None:
    status, figures, output = run(tmp_path, "--seconds", "12")
    assert status == 0, output
    assert figures["faults"] >= 6
    assert figures["operations"] > 200
    assert sum(figures[count] for count in ("lost", "doubled", "wrong_version")) == 0
    assert figures["non_finite"] == figures["blocked"] == figures["logged_defects"] == 0


@pytest.mark.long
@pytest.mark.timeout(150)
def test_writes_lost_by_a_redis_without_persistence_are_detected(tmp_path: Path) -> None:
    status, figures, _ = run(tmp_path, "--seconds", "6", "--without-persistence")
    assert status == 1
    assert figures["lost"] > 0
