"""Whether noise of gradients explains shifts under advice: ``python -m benchmarks noise``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.report.paths import FIGURES
from benchmarks.studies.noise import measured_cases, row_of, trainings_of
from benchmarks.studies.signal import signal
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.records import Record
from benchmarks.transfer.results import load

_FIGURES = Path(__file__).parents[3] / FIGURES
_CASE = next(case for case in CASES if case.name == "batch_size res_mlp SGD")
_ADVISED: Record = {"shift": 1.0, "shift_interval": [0.8, 1.2]}


def test_the_best_step_grows_with_the_root_of_the_signal() -> None:
    row = row_of(_CASE, [(0.1, 0.4), (0.05, 0.2)], _ADVISED)
    assert row["predicted"] == pytest.approx(1.0)  # an octave for four times the signal
    assert row["predicted_interval"] == pytest.approx([1.0, 1.0])
    assert (row["signal_of_base"], row["signal_of_big"]) == pytest.approx((0.075, 0.3))
    spread = row_of(_CASE, [(0.1, 0.1), (0.1, 1.6)], _ADVISED)
    assert spread["predicted"] == pytest.approx(1.0)
    # Half the 90% interval of two values: the quantile 6.314 times half their distance.
    assert spread["predicted_interval"] == pytest.approx([1 - 6.314, 1 + 6.314], abs=1e-3)


def test_a_signal_that_is_not_positive_predicts_nothing() -> None:
    with pytest.raises(ValueError, match=r"the signal of a gradient is not positive in \[\(-0.01"):
        row_of(_CASE, [(-0.01, 0.4), (0.1, 0.2)], _ADVISED)


def test_larger_batches_have_more_signal() -> None:
    pairs = trainings_of(replace(_CASE, steps=20, seeds=(0,)), -4.0)
    of_base, of_big = map(signal, pairs[0])
    assert 0 < 1.2 * of_base < of_big < 1


def test_stored_shifts_are_those_of_the_transfer_benchmark() -> None:
    rows = json.loads((_FIGURES / "noise.json").read_text("utf-8"))["noise"]
    found = measured_cases(*load(_FIGURES / "transfer.json")[:2])
    shown = {row["name"]: (row["steps"], row["shift"], row["shift_interval"]) for row in rows}
    assert shown == {
        each.case.name: (each.case.steps, each.advised["shift"], each.advised["shift_interval"])
        for each in found
    }


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["noise", "--figures", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "run `python -m benchmarks transfer` with --out first" in " ".join(
        result.output.replace("│", " ").split()
    )
