"""Whether a figure got better or worse between two files, or changed within its noise.

If the files have the noise of a figure, that decides: figures with a deviation over seeds are
compared by Welch's t-test, and figures with a range over rounds differ if each is outside the range
of the other. Otherwise the tolerance of the figure's kind decides. All rules are symmetric, so
exchanging the files exchanges better and worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from scipy import stats

from benchmarks.comparing.kinds import Better, Kind, Path, kind_of
from benchmarks.comparing.reading import Figure, figures_of

_SIGNIFICANCE = 0.01
# Changes below this part of the tolerance do not matter, however significant they are.
_MIN_TOLERANCE_PART = 0.25
_OWN_PACKAGE = "fslr-advisor"  # what is compared: its version may differ


class Verdict(StrEnum):
    """How a figure changed."""

    WORSE = "worse"
    BETTER = "better"
    WITHIN_NOISE = "within noise"
    MOVED = "moved"  # neither direction is better
    NEW = "new"
    GONE = "gone"
    NOT_COMPARED = "not compared"


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a figure.

    Attributes:
        path: Path of the figure.
        old: Its value in the old file.
        new: Its value in the new file.
        verdict: How it changed.
        why: Reason for the verdict.
    """

    path: str
    old: float | None
    new: float | None
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two files.

    Attributes:
        changes: The change of each figure.
        notes: Reasons why figures cannot be compared.
    """

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two files of the same benchmark.

    Args:
        old: Content of the old file.
        new: Content of the new file.
    """
    difference = _environment_difference(old, new)
    before, after = figures_of(old), figures_of(new)
    settings = _changed_settings(before, after)
    notes = []
    if difference:
        notes.append(f"different machine or versions, so times are not compared: {difference}")
    if old.get("command") != new.get("command"):
        notes.append(f"different commands: {old.get('command')} -> {new.get('command')}")
    notes += [
        f"different setting, so its figures are not compared: {'/'.join(path)}: {change}"
        for path, change in settings.items()
    ]
    parents = [path[:-1] for path in settings]
    changes = []
    for path in dict.fromkeys([*before, *after]):
        kind = kind_of(path) or Kind(Better.NEITHER)
        if kind.better in {Better.IGNORED, Better.SETTING}:
            continue
        old_figure, new_figure = before.get(path, Figure(None)), after.get(path, Figure(None))
        if old_figure.text is not None or new_figure.text is not None:
            continue
        if any(path[: len(parent)] == parent for parent in parents):
            verdict, why = Verdict.NOT_COMPARED, "different setting"
        elif kind.is_time and difference:
            verdict, why = Verdict.NOT_COMPARED, "different machine or versions"
        else:
            verdict, why = _judge(kind, old_figure, new_figure, path in before, path in after)
        changes.append(Change("/".join(path), old_figure.value, new_figure.value, verdict, why))
    return Comparison(changes, notes)


def _environment_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return how machines or versions differ; empty if they are the same."""
    known = []
    for file in (old, new):
        machine, versions = file.get("machine"), file.get("versions")
        if not isinstance(machine, dict) or not isinstance(versions, dict):
            return "a file does not record where it was measured"
        known.append({
            **{f"machine's {key}": machine.get(key) for key in ("cpu", "cores", "accelerator")},
            "threads": file.get("threads"),
            **{k: v for k, v in versions.items() if k != _OWN_PACKAGE},
        })
    before, after = known
    both = [key for key in before if key in after and key != "threads"]
    if None not in {before["threads"], after["threads"]}:  # older files do not record it
        both.append("threads")
    return ", ".join(
        f"{key} {before[key]} -> {after[key]}" for key in both if before[key] != after[key]
    )


def _changed_settings(
    before: Mapping[Path, Figure], after: Mapping[Path, Figure]
) -> dict[Path, str]:
    return {
        path: f"{_value_text(figure)} -> {_value_text(after[path])}"
        for path, figure in before.items()
        if path in after
        and (after[path].value, after[path].text) != (figure.value, figure.text)
        and (kind_of(path) or Kind(Better.NEITHER)).better is Better.SETTING
    }


def _value_text(figure: Figure) -> str:
    if figure.value is not None and figure.value.is_integer():
        return str(int(figure.value))
    return str(figure.text or figure.value)


def _judge(
    kind: Kind, old: Figure, new: Figure, is_in_old: bool, is_in_new: bool
) -> tuple[Verdict, str]:
    before, after = old.value, new.value
    if before is None or after is None:
        return _judge_missing(kind, before, after, is_in_old, is_in_new)
    if kind.better is Better.NEITHER:
        return (Verdict.WITHIN_NOISE if before == after else Verdict.MOVED), ""
    is_beyond, why = _beyond_noise(kind, old, new, before, after)
    if not is_beyond:
        return Verdict.WITHIN_NOISE, why
    gain = {
        Better.LOWER: before - after,
        Better.HIGHER: after - before,
        Better.NEARER_ZERO: abs(before) - abs(after),
    }[kind.better]
    return (Verdict.BETTER if gain > 0 else Verdict.WORSE), why


def _judge_missing(
    kind: Kind, before: float | None, after: float | None, is_in_old: bool, is_in_new: bool
) -> tuple[Verdict, str]:
    """Judge a figure without a value in one or both files."""
    if is_in_old and is_in_new:
        if before is None and after is None:
            return Verdict.WITHIN_NOISE, ""
        if kind.is_worst_if_missing:
            return (Verdict.WORSE if after is None else Verdict.BETTER), "diverged"
    is_new = is_in_new if before is None and after is None else before is None
    return (Verdict.NEW if is_new else Verdict.GONE), ""


def _beyond_noise(
    kind: Kind, old: Figure, new: Figure, before: float, after: float
) -> tuple[bool, str]:
    if kind.better is Better.NEARER_ZERO:
        before, after = abs(before), abs(after)
    change = abs(after - before)
    tolerance = max(kind.absolute, kind.relative * min(abs(before), abs(after)))
    is_large = change > _MIN_TOLERANCE_PART * tolerance
    if old.deviation is not None and new.deviation is not None and min(old.seeds, new.seeds) > 1:
        p_value = _p_value(old, new, change)
        return is_large and p_value < _SIGNIFICANCE, f"p = {p_value:.2g} over seeds"
    if old.rounds is not None and new.rounds is not None:
        is_apart = not (_within(old.rounds, after) or _within(new.rounds, before))
        return is_large and is_apart, f"{'outside' if is_apart else 'within'} the range of rounds"
    return change > tolerance, f"tolerance {tolerance:.3g}"


def _within(rounds: tuple[float, float], value: float) -> bool:
    return rounds[0] <= value <= rounds[1]


def _p_value(old: Figure, new: Figure, change: float) -> float:
    """Return the p value of a change by Welch's t-test."""
    before, after = old.deviation or 0.0, new.deviation or 0.0
    if before == after == 0:
        return 0.0 if change > 0 else 1.0
    found = stats.ttest_ind_from_stats(
        change, before, old.seeds, 0.0, after, new.seeds, equal_var=False
    )
    return float(found.pvalue)
