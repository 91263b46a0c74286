"""Results as JSON: one record per case, merged into a file as cases end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.transfer.cases import Case
from benchmarks.transfer.figures import Losses, at_edge, figures, search_saved, summary
from benchmarks.transfer.sweeps import CaseSweeps

_IDENTITY = ("axis", "model", "optimizer", "base", "big", "steps", "seeds")

Record = dict[str, Any]


def identity(case: Case) -> Record:
    """Return the part of a case's record that does not depend on its results.

    Args:
        case: The case.
    """
    return {
        "axis": case.axis,
        "model": case.model,
        "optimizer": case.optimizer,
        "base": case.base.text,
        "big": case.big.text,
        "steps": case.steps,
        "seeds": list(case.seeds),
    }


def record(case: Case, sweeps: CaseSweeps) -> Record:
    """Return the record of a case, with its figures and its sweeps.

    Args:
        case: The case.
        sweeps: Its sweeps.
    """
    base, plain, advised = sweeps.base, sweeps.plain, sweeps.advised
    found = figures(base.losses, plain.losses, advised.losses)
    octave = found.base_octave
    run_s = math.nan if octave is None else sum(advised.seconds[octave])
    return {
        **identity(case),
        "base_learning_rate": None if octave is None else 2.0**octave,
        "shift_plain": found.shift_plain,
        "shift_advised": found.shift_advised,
        "regret": found.regret,
        "loss_plain": found.loss_plain,
        "loss_advised": found.loss_advised,
        "loss_best_plain": found.loss_best_plain,
        "spread": found.spread,
        "at_edge": [
            name
            for name, sweep in (("base", base), ("plain", plain), ("advised", advised))
            if at_edge(sweep.losses)
        ],
        "seconds": {
            "base_sweep": base.total_s,
            "plain_sweep": plain.total_s,
            "advised_sweep": advised.total_s,
            "advised_run": None if octave is None else run_s,
        },
        "search_saved": None if octave is None else search_saved(plain.total_s, run_s),
        "search_saved_with_base": (
            None if octave is None else search_saved(plain.total_s, run_s, base.total_s)
        ),
        "unanswered": advised.unanswered,
        "sweeps": {
            "base": _by_learning_rate(base.losses),
            "plain": _by_learning_rate(plain.losses),
            "advised": _by_learning_rate(advised.losses),
        },
    }


def _by_learning_rate(losses: Losses) -> dict[str, list[float | None]]:
    """Return losses by learning rate, the highest first; None for trainings that diverged."""
    return {
        repr(2.0**octave): [loss if math.isfinite(loss) else None for loss in losses[octave]]
        for octave in sorted(losses, reverse=True)
    }


def is_finished(case: Case, cases: Sequence[Record]) -> bool:
    """Return whether there is a record of a case with the same sizes and seeds.

    Args:
        case: The case.
        cases: Records, as :func:`load` returns them.
    """
    wanted = identity(case)
    return any({key: old.get(key) for key in _IDENTITY} == wanted for old in cases)


def merged(cases: Sequence[Record], new: Record) -> list[Record]:
    """Return records with a new one, which replaces one with its axis, model and optimizer.

    Args:
        cases: The records so far.
        new: The new one.
    """

    def key(case: Mapping[str, Any]) -> tuple[str, str, str]:
        return case["axis"], case["model"], case["optimizer"]

    place = next((i for i, old in enumerate(cases) if key(old) == key(new)), len(cases))
    return [*cases[:place], new, *cases[place + 1 :]]


def document(cases: Sequence[Record], provenance: Mapping[str, Any]) -> Record:
    """Return the content of the file.

    Args:
        cases: The records.
        provenance: Their provenance.
    """
    return {**provenance, **summary(cases), "cases": list(cases)}


def load(file: Path) -> tuple[list[Record], Record]:
    """Return the records of a file and their provenance; both empty if the file does not exist.

    Args:
        file: The file.
    """
    if not file.is_file():
        return [], {}
    content: Record = json.loads(file.read_text("utf-8"))
    cases: list[Record] = content.pop("cases")
    return cases, {key: value for key, value in content.items() if key not in summary(cases)}


def save(file: Path, content: Record) -> None:
    """Write a file atomically: after an interruption it has the old or the new content.

    Args:
        file: The file.
        content: The content.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    temporary.replace(file)
