"""The examples for JAX, run as users run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["jax_plain", "jax_nnx", "jax_equinox"])
def test_an_example_trains_with_the_profile_of_a_smaller_model(name: str) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py", "--steps", "21"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "width 16, recorded: 3 points" in done.stdout
    assert "width 128, plain: loss" in done.stdout
    assert "multiplier" in done.stdout
    assert "Traceback" not in done.stderr
