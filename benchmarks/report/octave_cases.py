"""The cases of the transfer benchmark as sweeps in octaves: plain and advised.

Tables, notes and pictures of single cases show the base, the plain and the advised model. A stored
file has one record for each case and method; here the records of a case come together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.transfer.figures import at_edge, figures, search_saved
from benchmarks.transfer.methods import DEFAULT, STANDARD
from benchmarks.transfer.records import losses_of, methods_of, whole_octaves

Case = dict[str, Any]


def octave_cases(stored: Mapping[str, Any]) -> list[Case]:
    """Return the cases that have records of the standard method and of one of ours.

    That is the default method or, where it has not been measured, the one without a recipe.

    Args:
        stored: The content of ``transfer.json``.
    """
    found = []
    for base in stored["bases"]:
        by_method = methods_of(base, stored["cases"])
        ours = by_method.get(DEFAULT, by_method.get("measured"))
        if STANDARD in by_method and ours is not None:
            found.append(_case(base, by_method[STANDARD], ours))
    return found


def _case(base: Mapping[str, Any], standard: Mapping[str, Any], ours: Mapping[str, Any]) -> Case:
    records = {"base": base, "plain": standard, "advised": ours}
    sweeps = {name: whole_octaves(losses_of(record)) for name, record in records.items()}
    found = figures(sweeps["base"], sweeps["plain"], sweeps["advised"])
    search, run = standard["seconds"]["sweep"], ours["seconds"]["run"]
    of_base = base["seconds"]["sweep"]
    return {
        **{key: value for key, value in base.items() if key not in {"sweep", "seconds"}},
        "base_learning_rate": None if found.base_octave is None else 2.0**found.base_octave,
        "shift_plain": found.shift_plain,
        "shift_advised": found.shift_advised,
        "regret": found.regret,
        "loss_plain": found.loss_plain,
        "loss_advised": found.loss_advised,
        "loss_best_plain": found.loss_best_plain,
        "spread": found.spread,
        "at_edge": [name for name, sweep in sweeps.items() if at_edge(sweep)],
        "search_saved": None if run is None else search_saved(search, run),
        "search_saved_with_base": None if run is None else search_saved(search, run, of_base),
        "sweeps": {name: record["sweep"] for name, record in records.items()},
        "fitted": {"plain": standard, "advised": ours},
    }


def axes_of(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes that are scaled in the cases, in order, without duplicates."""
    return list(dict.fromkeys(case["axis"] for case in cases))
