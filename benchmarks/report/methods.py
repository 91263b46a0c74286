"""The section on methods side by side of the results page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.transfer.cases import CHOOSING
from benchmarks.transfer.methods import METHODS
from benchmarks.transfer.optimum import Verdict
from benchmarks.transfer.records import same_case

_Record = Mapping[str, Any]

SPOKEN = {
    "standard": "standard",
    "mup": "muP",
    "depth_mup": "depth-muP",
    "completep": "CompleteP",
    "flerm": "published FLeRM",
    "measured": "measured",
    "hybrid": "hybrid",
}
_METHODS = """\
Each method takes the base's best learning rate to the scaled model. `measured` is the default:
multipliers from measurements, on an unchanged model. `hybrid` also follows the recipe depth-muP,
which scales the initial weights and holds until the first measurement. The recipes muP, depth-muP
and CompleteP need no measurement. Optima are minima of quadratics in log2 of the learning rate,
fitted to all losses within an octave. Brackets have 90% intervals from a bootstrap over seeds. A
case cannot tell if the interval of its shift is wider than an octave, unless all of it is beyond
one. [A decision](../decisions/\
0023-cases-that-choose-and-cases-that-claim.md) says which cases choose the default method, and
which make the claim."""
_SHIFTS = """\
Shift of the best learning rate in octaves. Bold: beyond an octave. In italics: cannot be told."""
_REGRETS = """\
Loss at the base's best learning rate minus the best loss of the standard method, in nats:"""


def methods(figures: Mapping[str, Any]) -> str:
    """Return the tables that compare methods, over all cases and case by case."""
    records = figures["cases"]
    known = _known(records)
    return "\n\n".join([
        _METHODS,
        _overall(records, known),
        "By what is scaled: cases within an octave of those that can be told, and median regret:",
        _by_axis(records, known),
        by_case(records),
    ])


def by_case(records: Sequence[_Record]) -> str:
    """Return the shifts and the regrets of each method, case by case.

    Args:
        records: Records of methods.
    """
    known = _known(records)
    return "\n\n".join([
        _SHIFTS,
        _by_case(records, known, _shift),
        _REGRETS,
        _by_case(records, known, _regret),
    ])


def _known(records: Sequence[_Record]) -> list[str]:
    return [method for method in METHODS if any(r["method"] == method for r in records)]


def _overall(records: Sequence[_Record], known: Sequence[str]) -> str:
    rows = []
    for method in known:
        own = [record for record in records if record["method"] == method]
        claim = [record for record in own if not _is_choosing(record)]
        chosen = [record for record in own if _is_choosing(record)]
        rows.append((
            SPOKEN[method],
            str(len(own)),
            str(len(own) - len(_told(own))),
            *(cell for each in (chosen, claim) for cell in (_within(each), _median(each))),
        ))
    heads = (
        *("method", "cases", "cannot tell", "choosing cases: within an octave", "median regret"),
        *("claiming cases: within an octave", "median regret"),
    )
    return table(heads, rows)


def _by_axis(records: Sequence[_Record], known: Sequence[str]) -> str:
    rows = []
    for axis in dict.fromkeys(record["axis"] for record in records):
        cells = []
        for method in known:
            own = [r for r in records if r["axis"] == axis and r["method"] == method]
            cells.append(f"{_within(own)}, {_median(own)}" if own else "-")
        rows.append((axis.replace("_", " "), *cells))
    return table(("scaled", *(SPOKEN[method] for method in known)), rows)


def _by_case(records: Sequence[_Record], known: Sequence[str], cell: Any) -> str:
    rows = []
    seen: list[_Record] = []
    for record in records:
        if any(same_case(record, other) for other in seen):
            continue
        seen.append(record)
        own = {r["method"]: r for r in records if same_case(r, record)}
        rows.append((
            f"{record['axis'].replace('_', ' ')}: {record['model']}, {record['optimizer']}",
            f"{record['steps']:,}",
            str(len(record["seeds"])),
            *(cell(own[method]) if method in own else "-" for method in known),
        ))
    return table(("case", "steps", "seeds", *(SPOKEN[method] for method in known)), rows)


def _is_choosing(record: _Record) -> bool:
    return f"{record['axis']} {record['model']} {record['optimizer']}" in CHOOSING


def _told(records: Sequence[_Record]) -> list[_Record]:
    return [record for record in records if record["verdict"] != Verdict.CANNOT_TELL]


def _within(records: Sequence[_Record]) -> str:
    told = _told(records)
    return f"{sum(record['verdict'] == Verdict.WITHIN for record in told)} of {len(told)}"


def _median(records: Sequence[_Record]) -> str:
    regrets = [math.inf if r["regret"] is None else r["regret"] for r in records]
    median = statistics.median(regrets) if regrets else math.nan
    return number(median if math.isfinite(median) else None, "+.3f")


def _shift(record: _Record) -> str:
    text = with_interval(record, "shift", "+.2f")
    mark = {Verdict.BEYOND: "**", Verdict.CANNOT_TELL: "*"}.get(record["verdict"], "")
    return f"{mark}{text}{mark}"


def _regret(record: _Record) -> str:
    return with_interval(record, "regret", "+.3f")


def with_interval(record: _Record, key: str, form: str) -> str:
    """Return a figure with its 90% interval, if it is known.

    Args:
        record: The record of a method.
        key: ``shift`` or ``regret``.
        form: How to format the numbers.
    """
    figure, interval = number(record[key], form), record[f"{key}_interval"]
    return figure if interval is None else f"{figure} [{interval[0]:{form}}, {interval[1]:{form}}]"
