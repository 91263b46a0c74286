"""Results as JSON: one record for each case and method, merged into a file as they end.

``bases`` has the sweep of each case's base, ``cases`` one record for each case and method. All
figures of a record follow from the sweeps: :func:`with_figures` computes them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.transfer import choice, comparisons
from benchmarks.transfer.cases import Case
from benchmarks.transfer.figures import at_edge, best_octave, figures
from benchmarks.transfer.methods import DEFAULT, METHODS, MethodName
from benchmarks.transfer.optimum import Verdict, compare
from benchmarks.transfer.records import (
    CASE_KEYS,
    Record,
    as_list,
    by_learning_rate,
    identity,
    is_choosing,
    losses_of,
    methods_of,
    same_case,
    whole_octaves,
)
from benchmarks.transfer.sweeps import Sweep


def base_record(case: Case, base: Sweep) -> Record:
    """Return the record of a case's base.

    Args:
        case: The case.
        base: Its sweep.
    """
    return {
        **identity(case),
        "seconds": {"sweep": base.total_s},
        "sweep": by_learning_rate(base.losses),
    }


def method_record(case: Case, method: MethodName, big: Sweep, run_octave: int | None) -> Record:
    """Return the record of a method, without its figures.

    Args:
        case: The case.
        method: The method.
        big: Sweep of the big model with the method.
        run_octave: The whole octave that is transferred; None if the base diverged.
    """
    run = big.seconds.get(run_octave) if run_octave is not None else None
    return {
        **identity(case),
        "method": method,
        "seconds": {"sweep": big.total_s, "run": None if run is None else sum(run)},
        "unanswered": big.unanswered,
        "sweep": by_learning_rate(big.losses),
    }


def with_figures(record: Record, base: Record, standard: Record) -> Record:
    """Return a method's record with its figures, which replace those it may have.

    ``shift`` and ``regret`` are those of the fit, with 90% intervals. ``octaves`` has what the
    sweep in octaves shows.

    Args:
        record: The method's record.
        base: The record of the case's base.
        standard: The record of the case's standard method, to whose best loss a regret is relative.
    """
    sweeps = [losses_of(each) for each in (base, record, standard)]
    found = compare(*sweeps)
    on_base, on_big, on_standard = map(whole_octaves, sweeps)
    grid = figures(on_base, on_standard, on_big)
    named = (("base", on_base), ("big", on_big), ("standard", on_standard))
    found_figures = {
        **{key: record[key] for key in (*CASE_KEYS, "method")},
        "base_octave": found.base_octave,
        "base_octave_interval": as_list(found.base_interval),
        "shift": found.shift,
        "shift_interval": as_list(found.shift_interval),
        "verdict": found.verdict.value,
        "regret": found.regret,
        "regret_interval": as_list(found.regret_interval),
        "octaves": {
            "base": grid.base_octave,
            "shift": grid.shift_advised,
            "regret": grid.regret,
            "loss": grid.loss_advised,
            "spread": {
                "regret": grid.spread["regret"],
                "loss": grid.spread["loss_advised"],
            },
            "seeds": len(record["seeds"]),
        },
        "at_edge": [name for name, sweep in named if at_edge(sweep)],
    }
    return found_figures | {key: record[key] for key in record if key not in found_figures}


def is_finished(case: Case, method: MethodName, cases: Sequence[Record]) -> bool:
    """Return whether there is a record of a case and a method.

    Args:
        case: The case.
        method: The method.
        cases: Records, as :func:`load` returns them.
    """
    return method in methods_of(identity(case), cases)


def merged(records: Sequence[Record], new: Record) -> list[Record]:
    """Return records with a new one, which replaces older ones of the same case and method.

    If the case has changed, the records of its former form are removed, since methods are compared
    on one base only.

    Args:
        records: The records so far, of bases or of methods.
        new: The new one.
    """

    def is_replaced(old: Record) -> bool:
        names = ("axis", "model", "optimizer")
        is_of_case = all(old[name] == new[name] for name in names)
        return is_of_case and (not same_case(old, new) or old.get("method") == new.get("method"))

    place = next((i for i, old in enumerate(records) if is_replaced(old)), len(records))
    before = [old for old in records[:place] if not is_replaced(old)]
    return [*before, new, *(old for old in records[place:] if not is_replaced(old))]


def referred_to(records: Sequence[Record], base: Record, standard: Record) -> list[Record]:
    """Return records with the figures of a case's methods relative to a new standard record.

    Args:
        records: The records of all cases and methods.
        base: The record of the case's base.
        standard: The new record of the case's standard method.
    """
    return [
        with_figures(old, base, standard) if same_case(old, standard) else old for old in records
    ]


def document(
    bases: Sequence[Record], cases: Sequence[Record], provenance: Mapping[str, Any]
) -> Record:
    """Return the content of the file.

    ``within_one_octave``, ``median_regret`` and ``claim`` are those of the method ``figures_of``:
    the default method, or, without its records, the first of ours that has some.

    Args:
        bases: The records of bases.
        cases: The records of cases and methods.
        provenance: Their provenance.
    """
    by_method: dict[str, Record] = {
        method: _summaries([case for case in cases if case["method"] == method])
        for method in METHODS
        if any(case["method"] == method for case in cases)
    }
    ours = next((name for name in (DEFAULT, *comparisons.OURS) if name in by_method), DEFAULT)
    found = by_method.get(ours, _summaries([]))
    pairs = comparisons.pairs_of(bases, cases)
    return {
        **provenance,
        "figures_of": ours,
        "within_one_octave": found["within_one_octave"],
        "median_regret": found["median_regret"],
        "claim": {key: found["claiming"][key] for key in ("within_one_octave", "median_regret")},
        "choice": choice.as_record(choice.choose(cases, pairs)),
        "methods": by_method,
        **comparisons.as_records(pairs, comparisons.axis_comparisons(pairs)),
        "cases": list(cases),
        "bases": list(bases),
    }


def _summaries(cases: Sequence[Record]) -> Record:
    """Return the figures of a method over all cases, and over those that claim and that choose."""
    return {
        **summary(cases),
        "claiming": summary([case for case in cases if not is_choosing(case)]),
        "choosing": summary([case for case in cases if is_choosing(case)]),
    }


def summary(cases: Sequence[Record]) -> Record:
    """Return the figures of a method over cases.

    Cases whose shift cannot be told are left out of the share within one octave. A training that
    diverges has an infinite regret.

    Args:
        cases: The method's records.
    """
    told = [case for case in cases if case["verdict"] != Verdict.CANNOT_TELL]
    within = sum(case["verdict"] == Verdict.WITHIN for case in told)
    regrets = [math.inf if case["regret"] is None else case["regret"] for case in cases]
    median = statistics.median(regrets) if regrets else math.inf
    return {
        "cases": len(cases),
        "told": len(told),
        "within": within,
        "within_one_octave": within / len(told) if told else None,
        "median_regret": median if math.isfinite(median) else None,
    }


def load(file: Path) -> tuple[list[Record], list[Record], Record]:
    """Return the bases and cases of a file and their provenance; empty if it does not exist.

    Args:
        file: The file.

    Raises:
        ValueError: The file has a different form.
    """
    if not file.is_file():
        return [], [], {}
    content: Record = json.loads(file.read_text("utf-8"))
    if "bases" not in content:
        raise ValueError(f"{file} has no records of methods; give a different file")
    bases, cases = content.pop("bases"), content.pop("cases")
    computed = set(document([], [], {}))
    return bases, cases, {key: value for key, value in content.items() if key not in computed}


def save(file: Path, content: Record) -> None:
    """Write a file atomically: after an interruption it has the old or the new content.

    Args:
        file: The file.
        content: The content.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(_dumped(content) + "\n", "utf-8")
    temporary.replace(file)


def _dumped(content: Record) -> str:
    """Return JSON with each list of numbers on one line."""
    lists: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, list | tuple):
            if all(isinstance(each, int | float | None) for each in value):
                lists.append(json.dumps(value, allow_nan=False))
                return f"\0{len(lists) - 1}\0"
            return [marked(each) for each in value]
        if isinstance(value, dict):
            return {key: marked(each) for key, each in value.items()}
        return value

    parts = json.dumps(marked(content), indent=1, allow_nan=False).split('"\\u0000')
    found = [parts[0]]
    for part in parts[1:]:
        index, _, rest = part.partition('\\u0000"')
        found += [lists[int(index)], rest]
    return "".join(found)


def transferred_octave(base: Sweep) -> int | None:
    """Return the whole octave of a base's lowest mean loss; None if each one diverged."""
    return best_octave(base.grid)
