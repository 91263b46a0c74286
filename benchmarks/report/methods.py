"""The tables that compare methods on the results page: over all cases, by axis, case by case."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from benchmarks.markdown import number, table
from benchmarks.transfer.cases import CASES, Case
from benchmarks.transfer.comparisons import mean_regret
from benchmarks.transfer.methods import DEFAULT, HYBRIDS, METHODS, MethodName, method_of
from benchmarks.transfer.optimum import Verdict
from benchmarks.transfer.paired import MeanFigure
from benchmarks.transfer.records import (
    Record,
    case_name,
    identity,
    is_choosing,
    methods_of,
    same_case,
    with_interval,
)
from benchmarks.transfer.results import summary

SPOKEN = {
    "standard": "standard",
    "mup": "muP",
    "depth_mup": "depth-muP",
    "completep": "CompleteP",
    "flerm": "published FLeRM",
    "measured": "measured",
    "hybrid": "hybrid (depth-muP)",
    "hybrid_standard": "hybrid (depth-standard)",
}
_AXIS_NAMES = {
    "width_depth": "width and depth",
    "init_scale": "larger initial weights",
    "lora_rank": "LoRA rank",
}
NOT_MEASURED = "not measured"
NO_RULE = "no rule"
_BY_NAME = {case.name: case for case in CASES}
METHODS_TEXT = f"""\
Each method takes the base's best learning rate to the scaled model. The default is
{SPOKEN[DEFAULT]}. `standard` changes nothing. The recipes muP, depth-muP and CompleteP need no
measurement. `measured` has multipliers from measurements, on an unchanged model. A hybrid also
follows a recipe, which scales the initial weights and holds until the first measurement:
`{HYBRIDS["hybrid"]}`, or `{HYBRIDS["hybrid_standard"]}`, which leaves PyTorch's default
initial weights as they are where only the width grows. Where the recipe has no rule for the
optimizer or the model, a hybrid is `measured`. Optima are minima of quadratics in log2 of the
learning rate, fitted to all losses within an octave. Brackets have 90% intervals from a bootstrap
over seeds. A case cannot tell if the interval of its shift is wider than an octave, unless all of
it is beyond one. [A decision](\
../decisions/0023-cases-that-choose-and-cases-that-claim.md) says which cases choose the default
method, and which make the claim."""
_BY_AXIS = """\
Mean regret by what is scaled, in nats: the loss at the base's best learning rate minus the best
loss of a full search with the standard method. Negative values are better than that search. The
intervals have the noise of seeds, for these cases. Parentheses say how many of the cases a mean has
if it lacks some, and in how many the method diverged, which the mean leaves out. A method without a
rule for an optimizer or a model has no regret there."""
_SHIFTS = """\
Shift of the best learning rate in octaves. Bold: beyond an octave. Italics: the seeds
differ too much to decide."""
_REGRETS = """\
Loss at the base's best learning rate minus the best loss of the standard method, in nats:"""


def known_methods(records: Sequence[Record]) -> list[MethodName]:
    """Return the methods that have a record, in order."""
    return [method for method in METHODS if any(r["method"] == method for r in records)]


def overall(records: Sequence[Record]) -> str:
    """Return the figures of each method over the cases that claim, and over those that choose.

    Args:
        records: Records of methods.
    """
    rows = []
    for method in known_methods(records):
        own = [record for record in records if record["method"] == method]
        claim = [record for record in own if not is_choosing(record)]
        chosen = [record for record in own if is_choosing(record)]
        rows.append((SPOKEN[method], *_overall_cells(claim), *_overall_cells(chosen)))
    heads = (
        *("method", "claiming cases", "within an octave", "cannot tell", "median regret"),
        *("choosing cases", "within an octave", "cannot tell", "median regret"),
    )
    return table(heads, rows)


def _overall_cells(records: Sequence[Record]) -> tuple[str, ...]:
    if not records:
        return "0", "-", "-", "-"
    found = summary([dict(record) for record in records])
    share = number(found["within_one_octave"], ".0%")
    within = f"{found['within']} of {found['told']}" + (f" ({share})" if found["told"] else "")
    median = found["median_regret"]
    return (
        str(found["cases"]),
        within,
        str(found["cases"] - found["told"]),
        "diverged" if median is None else number(median, "+.3f"),
    )


def by_axis(records: Sequence[Record]) -> str:
    """Return the mean regret of each method on each axis, with its interval.

    Args:
        records: Records of methods.
    """
    known = known_methods(records)
    axes = list(dict.fromkeys(record["axis"] for record in records))
    rows = []
    for axis in (*axes, None):
        own = [record for record in records if axis in {None, record["axis"]}]
        cases = len({case_name(record) for record in own})
        cells = [_axis_cell(own, method, cases) for method in known]
        rows.append((f"**{axis_name(axis)}**" if axis else "**all**", str(cases), *cells))
    heads = ("scaled", "cases", *(SPOKEN[method] for method in known))
    return f"{_BY_AXIS}\n\n{table(heads, rows)}"


def mean_of_finite(records: Sequence[Record]) -> tuple[MeanFigure | None, int]:
    """Return the mean regret where a method does not diverge, and in how many cases it does.

    Args:
        records: Records of one method.
    """
    finite = [dict(record) for record in records if record["regret"] is not None]
    return mean_regret(finite), len(records) - len(finite)


def _axis_cell(records: Sequence[Record], method: MethodName, cases: int) -> str:
    own = [record for record in records if record["method"] == method]
    if not own:
        names = {case_name(record) for record in records}
        return NO_RULE if all(is_silent(method, name) for name in names) else NOT_MEASURED
    mean, diverged = mean_of_finite(own)
    if mean is None:
        return "diverged"
    figure = number(mean.mean, "+.3f")
    if mean.interval is not None:
        low, high = mean.interval
        figure += f" [{low:+.3f}, {high:+.3f}]"
    notes = [str(mean.cases)] if mean.cases + diverged < cases else []
    notes += [f"{diverged} diverged"] if diverged else []
    return f"{figure} ({', '.join(notes)})" if notes else figure


def is_silent(method: MethodName, name: str) -> bool:
    """Return whether a method says nothing of a case.

    Args:
        method: The method.
        name: The case's name.
    """
    return name in _BY_NAME and method_of(method, _BY_NAME[name]) is None


def by_case(records: Sequence[Record]) -> str:
    """Return the regrets and the shifts of each method, case by case.

    Args:
        records: Records of methods.
    """
    known = known_methods(records)
    return "\n\n".join([
        _REGRETS,
        _by_case(records, known, _regret),
        _SHIFTS,
        _by_case(records, known, _shift),
    ])


def _by_case(
    records: Sequence[Record], known: Sequence[MethodName], cell: Callable[[Record], str]
) -> str:
    rows = []
    seen: list[Record] = []
    for record in records:
        if any(same_case(record, other) for other in seen):
            continue
        seen.append(record)
        own = methods_of(record, records)
        name = case_name(record)
        without = {m: NO_RULE if is_silent(m, name) else NOT_MEASURED for m in known}
        rows.append((
            f"{spoken(record['axis'])}: {record['model']}, {record['optimizer']}",
            f"{record['steps']:,}",
            str(len(record["seeds"])),
            *(cell(own[method]) if method in own else without[method] for method in known),
        ))
    return table(("case", "steps", "seeds", *(SPOKEN[method] for method in known)), rows)


def axis_name(axis: str) -> str:
    """Return what is scaled, as readable text."""
    return _AXIS_NAMES.get(axis, spoken(axis))


def spoken(name: str) -> str:
    """Return an identifier such as ``batch_size`` as words."""
    return name.replace("_", " ")


def _shift(record: Record) -> str:
    text = with_interval(record, "shift", "+.2f")
    mark = {Verdict.BEYOND: "**", Verdict.CANNOT_TELL: "*"}.get(record["verdict"], "")
    return f"{mark}{text}{mark}"


def _regret(record: Record) -> str:
    return with_interval(record, "regret", "+.3f")


def unmeasured(records: Sequence[Record]) -> dict[str, list[Case]]:
    """Return the cases that lack a record in their present form, by method.

    The key "" has the cases without any record. They are left out elsewhere, and so are cases of
    which a method says nothing.

    Args:
        records: Records of methods.
    """
    known = {case.name: set(methods_of(identity(case), records)) for case in CASES}
    found = {"": [case for case in CASES if not known[case.name]]}
    for method, case in itertools.product(METHODS, CASES):
        of_case = known[case.name]
        if of_case and method not in of_case and method_of(method, case) is not None:
            found.setdefault(method, []).append(case)
    return {method: cases for method, cases in found.items() if cases}


def not_measured(records: Sequence[Record]) -> str:
    """Return a list of what is not measured yet; empty if all is.

    Args:
        records: Records of methods.
    """
    found = unmeasured(records)
    if not found:
        return ""
    lines = []
    for method, cases in found.items():
        grouped = itertools.groupby(cases, lambda case: case.axis)
        names = "; ".join(
            f"{axis_name(axis)}: {', '.join(f'{case.model} {case.optimizer}' for case in group)}"
            for axis, group in grouped
        )
        who = SPOKEN[method] if method else "Not measured with any method"
        lines.append(f"- **{who}** ({len(cases)} of {len(CASES)} cases): {names}.")
    return (
        "Not measured in the present form of the cases. Rows above that have the same name are of "
        "an earlier, shorter form, and are included in the totals:\n\n" + "\n".join(lines)
    )
