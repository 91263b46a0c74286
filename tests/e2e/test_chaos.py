"""The short form of the fault injection: clients at work while parts of a deployment die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, int], str]:
    """Run the command; return its status, the figures of its last line, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--quick", "--out", str(folder), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=FOLDER,
        timeout=250,
    )
    said = done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), said


@pytest.mark.long
def test_under_faults_no_promise_is_broken(tmp_path: Path) -> None:
    status, figures, said = run(tmp_path, "--seconds", "12")
    assert status == 0, said
    assert figures["faults"] >= 6
    assert figures["operations"] > 200
    assert sum(figures[count] for count in ("lost", "doubled", "wrong_version")) == 0
    assert figures["non_finite"] == figures["blocked"] == 0


@pytest.mark.long
@pytest.mark.timeout(150)
def test_a_redis_that_forgets_is_found_out(tmp_path: Path) -> None:
    status, figures, _ = run(tmp_path, "--seconds", "6", "--without-persistence")
    assert status == 1
    assert figures["lost"] > 0
