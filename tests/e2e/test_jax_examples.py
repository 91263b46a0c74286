"""The examples for JAX: the first one run as users run it, the others in this process."""

from __future__ import annotations

import logging
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def fast_compilation() -> Iterator[None]:
    """Optimize little: the models take longer to compile than to train."""
    name = "jax_disable_most_optimizations"
    config: Any = jax.config
    before = config.values[name]
    config.update(name, True)
    yield
    config.update(name, before)


def check(printed: str, learning_rates: list[str]) -> None:
    """Check what an example printed."""
    assert len(re.findall(r"width 16, learning rate \S+: \d", printed)) == len(learning_rates)
    assert f"recorded at {learning_rates[-1]}: 3 points" in printed
    assert re.search(r"width \d+, plain: \d", printed)
    assert re.search(r"width \d+, advised: \d", printed)
    assert "multiplier" in printed


def test_an_example_trains_with_the_best_learning_rate_of_a_smaller_model() -> None:
    learning_rates = ["0.001", "0.03"]
    done = subprocess.run(
        [
            *(sys.executable, "examples/jax_plain.py"),
            *("--steps", "21", "--learning-rates", *learning_rates),
        ],
        cwd=_ROOT,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(done.stdout, learning_rates)
    assert "Traceback" not in done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.usefixtures("fast_compilation")
@pytest.mark.parametrize(
    ("name", "learning_rate"),
    [("jax_nnx", "0.03"), ("jax_equinox", "0.03"), ("jax_linen", "0.01")],
)
@pytest.mark.compatibility("Flax linen", "record", "advised")
def test_modules_of_frameworks_train_with_the_learning_rate_of_smaller_ones(
    name: str,
    learning_rate: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = ["--steps", "21", "--learning-rates", learning_rate]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    with caplog.at_level(logging.WARNING, "fslr"):
        runpy.run_path(str(_ROOT / f"examples/{name}.py"), run_name="__main__")
    check(capsys.readouterr().out, [learning_rate])
    assert not caplog.records
