"""The examples for JAX, run as users run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "learning_rates"),
    [("jax_plain", ["0.001", "0.03"]), ("jax_nnx", ["0.03"]), ("jax_equinox", ["0.03"])],
)
def test_an_example_trains_with_the_best_learning_rate_of_a_smaller_model(
    name: str, learning_rates: list[str]
) -> None:
    options = ["--steps", "21", "--learning-rates", *learning_rates]
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py", *options],
        cwd=_ROOT,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(r"width 16, learning rate \S+: \d", done.stdout)) == len(learning_rates)
    assert "recorded at 0.03: 3 points" in done.stdout
    assert re.search(r"width \d+, plain: \d", done.stdout)
    assert "multiplier" in done.stdout
    assert re.search(r"width \d+, advised: \d", done.stdout)
    assert "Traceback" not in done.stderr
    assert "WARNING" not in done.stderr
