"""What is said by hand of single cases of the transfer benchmark is what was measured."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.tables import FIGURES
from benchmarks.transfer.notes import NOTES

_STORED = json.loads((Path(__file__).parents[3] / FIGURES / "transfer.json").read_text("utf-8"))
_CASES = {f"{case['axis']} {case['model']} {case['optimizer']}": case for case in _STORED["cases"]}


def means(case: dict[str, Any], sweep: str) -> dict[int, float]:
    """Mean losses over seeds by octaves from the base's best learning rate."""
    best = math.log2(case["base_learning_rate"])
    return {
        round(math.log2(float(rate)) - best): statistics.fmean(losses)
        for rate, losses in case["sweeps"][sweep].items()
        if None not in losses
    }


def at_the_base_s_best(case: dict[str, Any], sweep: str) -> list[float]:
    """Losses by seed at the base's best learning rate."""
    by_rate = {float(rate): losses for rate, losses in case["sweeps"][sweep].items()}
    found: list[float] = by_rate[case["base_learning_rate"]]
    return found


def within(losses: Sequence[float]) -> str:
    """How near losses are to each other, rounded up."""
    return f"within {math.ceil(1000 * (max(losses) - min(losses))) / 1000:.3f} nats"


def said_of(name: str) -> dict[str, str]:
    """The figures that a note should hold, by what they are."""
    case = _CASES[name]
    base, plain, advised = (means(case, sweep) for sweep in ("base", "plain", "advised"))
    best_plain = min(plain.values())
    match name:
        case "width char_gpt_post_mod Adam":
            three = [base[octave] for octave in (0, -1, -2)]
            lone = case["spread"]["shift_advised"].count(-1)
            return {
                "three rates": within(three),
                "seeds": {2: "two of three seeds alone show a shift of -1"}[lone],
                "two octaves below": f"({advised[-2]:.3f} and {best_plain:.3f})",
            }
        case "width char_gpt_pre Adagrad":
            high, *rest = sorted(at_the_base_s_best(case, "advised"), reverse=True)
            return {
                "the one seed": f"it ends at {high:.3f} nats",
                "the others": f"at {rest[1]:.3f} and {rest[0]:.3f}",
                "an octave lower": f"the base loses {base[-1] - base[0]:.3f} nats",
                "the mean there": f"is {best_plain - advised[-1]:.3f} nats below the best",
            }
        case "width conv_net SGD":
            pair = base[0], base[-2]
            return {
                "two rates": within(pair),
                "between seeds": f"less than the {case['spread']['regret']:.3f} by which",
                "an octave below": f"loses {advised[-1] - min(advised.values()):.3f} nats more",
            }
        case "sequence_length char_gpt_pre Adam" | "batch_size char_gpt_pre Adam":
            first, second = sorted(base.values())[:2]
            other = next(octave for octave, loss in base.items() if loss == second)
            shift = case["shift_advised"] - other
            return {
                "two best": within((first, second)),
                "from the other": {1: "from the other one the shift is one octave"}[shift],
            }
    raise AssertionError(f"nobody checks the note of {name}")


@pytest.mark.parametrize("name", NOTES)
def test_a_note_s_figures_are_those_of_the_file(name: str) -> None:
    note = re.sub(r"\s+", " ", NOTES[name])
    for what, words in said_of(name).items():
        assert words in note, what


def test_every_figure_of_the_notes_is_looked_at() -> None:
    for name, note in NOTES.items():
        looked_at = " ".join(said_of(name).values())
        assert set(re.findall(r"\d\.\d+", note)) == set(re.findall(r"\d\.\d+", looked_at)), name
