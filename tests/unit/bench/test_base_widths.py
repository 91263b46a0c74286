"""Whether narrow bases explain what advice misses: ``python -m benchmarks base-widths``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.report.paths import FIGURES
from benchmarks.studies.base_widths import (
    MissedCase,
    cells_of,
    missed_cases,
    proportional_shift,
    rows_of,
)
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.results import load
from benchmarks.transfer.training import Trained, Training

_FIGURES = Path(__file__).parents[3] / FIGURES
_CASE = next(case for case in CASES if case.name == "width char_gpt_post_mod Adam")


class _Parabolas(Bench):
    """A bench whose optima are known: -6 for the big model, and higher for narrower ones."""

    def run(self, trainings: Sequence[Training]) -> list[Trained]:
        return [Trained(self._loss(each), 1.0, [], content=b"\n") for each in trainings]

    def register(self, profile: str, content: bytes) -> str:
        assert content
        return profile

    def _loss(self, training: Training) -> float:
        octave = math.log2(training.learning_rate)
        return 2.0 + (octave - optimum(training.setting.width)) ** 2


def optimum(width: int) -> float:
    return {16: -4.0, 32: -5.5, 128: -6.0}[width]


def parabola(best: float) -> dict[float, list[float]]:
    return {best + o / 4: [2.0 + (o / 4) ** 2] * 5 for o in range(-12, 13)}


def test_each_base_has_its_shift_and_the_one_that_growth_alone_would_leave() -> None:
    missed = MissedCase(_CASE, *(parabola(optimum(width)) for width in (16, 128, 128)))
    rows = list(rows_of(_Parabolas(), missed))
    assert [row["base_width"] for row in rows] == [16, 32]
    assert {row["big_width"] for row in rows} == {128}
    assert [row["octave"] for row in rows] == pytest.approx([-4.0, -5.5])
    assert [row["shift"] for row in rows] == pytest.approx([-2.0, -0.5])
    assert [row["regret"] for row in rows] == pytest.approx([4.0, 0.25])
    assert [row["verdict"] for row in rows] == ["beyond", "within"]
    # 16 to 128 is three doublings, 32 to 128 two of them.
    assert proportional_shift(rows[1], rows[0]) == pytest.approx(-4 / 3)
    cells = cells_of(rows)
    assert [each[1] for each in cells] == ["16 to 128", "32 to 128"]
    assert [each[4] for each in cells] == ["", "-1.33"]


def test_stored_rows_are_of_the_cases_that_the_transfer_benchmark_misses() -> None:
    rows = json.loads((_FIGURES / "base-widths.json").read_text("utf-8"))["base_widths"]
    missed = missed_cases(*load(_FIGURES / "transfer.json")[:2])
    own = {each.case.name: each.case.base.width for each in missed}
    firsts = {row["name"]: row["base_width"] for row in reversed(rows)}
    assert firsts == own


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["base-widths", "--figures", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "is beyond an octave; run `python -m benchmarks transfer --axis width`" in " ".join(
        result.output.replace("│", " ").split()
    )
