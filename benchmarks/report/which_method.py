"""The table to decide by: which method, by what grows and which optimizer trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.markdown import number, table
from benchmarks.report.methods import (
    NO_RULE,
    NOT_MEASURED,
    SPOKEN,
    is_silent,
    mean_of_finite,
)
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.choice import choose_for
from benchmarks.transfer.comparisons import pairs_of
from benchmarks.transfer.methods import HYBRIDS, MethodName
from benchmarks.transfer.records import Record, case_name

RECIPES: Final[tuple[MethodName, ...]] = ("mup", "depth_mup", "completep")
_NAMED: Final = {*RECIPES, *HYBRIDS}  # in the cells of their columns
_WITH_RECIPES: Final = ("Adam", "AdamW", "SGD")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table.

    Attributes:
        name: What grows.
        has: Whether a case with this axis and this optimizer belongs to it.
    """

    name: str
    has: Callable[[str, str], bool]


def _on(axis: str) -> Callable[[str, str], bool]:
    return lambda its, optimizer: its == axis and optimizer in _WITH_RECIPES


ROWS: Final = (
    _Row("width, with Adam or AdamW", lambda axis, by: axis == "width" and by in {"Adam", "AdamW"}),
    _Row("width, with SGD", lambda axis, by: axis == "width" and by == "SGD"),
    _Row(
        "width, with other optimizers",
        lambda axis, by: axis == "width" and by not in _WITH_RECIPES,
    ),
    _Row("depth", _on("depth")),
    _Row("width and depth", _on("width_depth")),
    _Row("batch size", _on("batch_size")),
    _Row("sequence length", _on("sequence_length")),
    _Row("duration of training", _on("duration")),
    _Row("number of experts", _on("experts")),
    _Row("rank of LoRA", _on("lora_rank")),
    _Row("larger initial weights", _on("init_scale")),
)


def which_method(figures: Record) -> str:
    """Return which method to use for what grows, with the mean regrets that say so.

    Args:
        figures: The content of ``transfer.json``.
    """
    pairs = pairs_of(figures["bases"], figures["cases"])
    rows = []
    for row in ROWS:
        own = [r for r in figures["cases"] if row.has(r["axis"], r["optimizer"])]
        chosen = choose_for(own, pairs).method
        names = {case_name(record) for record in own}
        recipe, hybrid = _best(own, RECIPES), _best(own, tuple(HYBRIDS))
        shown: tuple[MethodName, ...] = ("standard", recipe, "measured", hybrid)
        rows.append((
            row.name,
            str(len(names)),
            NOT_MEASURED if chosen is None else f"**{SPOKEN[chosen]}**",
            *(_cell(own, row, method, is_named=method in _NAMED) for method in shown),
        ))
    heads = ("what grows", "cases", "use", "standard", "best recipe", "measured", "best hybrid")
    return table(heads, rows)


def _best(records: Sequence[Record], methods: Sequence[MethodName]) -> MethodName:
    """Return the method with the lowest mean regret, of those with the most cases."""

    def rank(method: MethodName) -> tuple[int, float]:
        mean, _ = mean_of_finite([r for r in records if r["method"] == method])
        return (0, 0.0) if mean is None else (-mean.cases, mean.mean)

    return min(methods, key=rank)


def _cell(records: Sequence[Record], row: _Row, method: MethodName, *, is_named: bool) -> str:
    own = [record for record in records if record["method"] == method]
    if not own:
        cases = [case.name for case in CASES if row.has(case.axis, case.optimizer)]
        return NO_RULE if all(is_silent(method, name) for name in cases) else NOT_MEASURED
    mean, diverged = mean_of_finite(own)
    if mean is None:
        return "diverged"
    text = number(mean.mean, "+.3f")
    if mean.interval is not None:
        text += f" ± {(mean.interval[1] - mean.interval[0]) / 2:.3f}"
    known, every = mean.cases + diverged, len({case_name(record) for record in records})
    notes = [f"{known} of {every}"] if known < every else []
    notes += [f"{diverged} diverged"] if diverged else []
    text += f" ({', '.join(notes)})" if notes else ""
    return f"{SPOKEN[method]}: {text}" if is_named else text
