"""Whether a figure got better or worse between two files, or moved within its noise.

Noise is what the files say of themselves where they do: figures with a deviation between seeds are
told apart by Welch's t-test, figures with a range over rounds if each lies outside of the other's
range. Where they do not, it is the tolerance of the figure's kind. All of it is symmetric, so
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
# Changes below this part of the tolerance are nobody's trouble, however sure they are.
_LEAST_PART = 0.25
_OWN_PACKAGE = "fslr-advisor"  # what is tested: another version of it is no other machine


class Verdict(StrEnum):
    """What became of a figure."""

    WORSE = "worse"
    BETTER = "better"
    WITHIN_NOISE = "within noise"
    MOVED = "moved"  # neither direction is better
    NEW = "new"
    GONE = "gone"
    NOT_COMPARED = "not compared"


@dataclass(frozen=True, slots=True)
class Change:
    """A figure in both files.

    Attributes:
        path: Which.
        old: Its value in the old file.
        new: In the new one.
        verdict: What became of it.
        why: What the verdict rests on.
    """

    path: str
    old: float | None
    new: float | None
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two files compared.

    Attributes:
        changes: A change for each figure.
        notes: What keeps figures from being compared.
    """

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two files of the same benchmark.

    Args:
        old: Content of the one.
        new: Content of the other.
    """
    elsewhere = _elsewhere(old, new)
    before, after = figures_of(old), figures_of(new)
    settings = _other_settings(before, after)
    notes = [f"other machine or versions, times are not compared: {elsewhere}"] if elsewhere else []
    if old.get("command") != new.get("command"):
        notes.append(f"measured by other commands: {old.get('command')} -> {new.get('command')}")
    notes += [
        f"other setting, its figures are not compared: {'/'.join(path)}: {change}"
        for path, change in settings.items()
    ]
    parents = [path[:-1] for path in settings]
    changes = []
    for path in dict.fromkeys([*before, *after]):
        kind = kind_of(path) or Kind(Better.NEITHER)
        if kind.better in {Better.IGNORED, Better.SETTING}:
            continue
        one, two = before.get(path, Figure(None)), after.get(path, Figure(None))
        if one.text is not None or two.text is not None:
            continue
        if any(path[: len(parent)] == parent for parent in parents):
            verdict, why = Verdict.NOT_COMPARED, "other setting"
        elif kind.is_time and elsewhere:
            verdict, why = Verdict.NOT_COMPARED, "other machine or versions"
        else:
            verdict, why = _judged(kind, one, two, path in before, path in after)
        changes.append(Change("/".join(path), one.value, two.value, verdict, why))
    return Comparison(changes, notes)


def _elsewhere(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in what the machines or versions differ; empty if in nothing."""
    known = []
    for file in (old, new):
        machine, versions = file.get("machine"), file.get("versions")
        if not isinstance(machine, dict) or not isinstance(versions, dict):
            return "a file does not say where it was measured"
        known.append({
            **{f"machine's {key}": machine.get(key) for key in ("cpu", "cores", "accelerator")},
            "threads": file.get("threads"),
            **{k: v for k, v in versions.items() if k != _OWN_PACKAGE},
        })
    one, two = known
    both = [key for key in one if key in two and key != "threads"]
    if None not in {one["threads"], two["threads"]}:  # older files did not write it down
        both.append("threads")
    return ", ".join(f"{key} {one[key]} -> {two[key]}" for key in both if one[key] != two[key])


def _other_settings(before: Mapping[Path, Figure], after: Mapping[Path, Figure]) -> dict[Path, str]:
    return {
        path: f"{_told(figure)} -> {_told(after[path])}"
        for path, figure in before.items()
        if path in after
        and (after[path].value, after[path].text) != (figure.value, figure.text)
        and (kind_of(path) or Kind(Better.NEITHER)).better is Better.SETTING
    }


def _told(figure: Figure) -> str:
    if figure.value is not None and figure.value.is_integer():
        return str(int(figure.value))
    return str(figure.text or figure.value)


def _judged(
    kind: Kind, old: Figure, new: Figure, is_in_old: bool, is_in_new: bool
) -> tuple[Verdict, str]:
    one, two = old.value, new.value
    if one is None and two is None:
        return (
            (Verdict.WITHIN_NOISE, "")
            if is_in_old and is_in_new
            else (Verdict.NEW if is_in_new else Verdict.GONE, "")
        )
    if one is None or two is None:
        if kind.is_worst_if_missing and is_in_old and is_in_new:
            return (Verdict.WORSE if two is None else Verdict.BETTER), "diverged"
        return (Verdict.NEW if one is None else Verdict.GONE), ""
    if kind.better is Better.NEITHER:
        return (Verdict.WITHIN_NOISE if one == two else Verdict.MOVED), ""
    is_beyond, why = _beyond_noise(kind, old, new, one, two)
    if not is_beyond:
        return Verdict.WITHIN_NOISE, why
    gain = {
        Better.LOWER: one - two,
        Better.HIGHER: two - one,
        Better.NEARER_ZERO: abs(one) - abs(two),
    }[kind.better]
    return (Verdict.BETTER if gain > 0 else Verdict.WORSE), why


def _beyond_noise(kind: Kind, old: Figure, new: Figure, one: float, two: float) -> tuple[bool, str]:
    if kind.better is Better.NEARER_ZERO:
        one, two = abs(one), abs(two)
    change = abs(two - one)
    tolerance = max(kind.absolute, kind.relative * min(abs(one), abs(two)))
    is_large = change > _LEAST_PART * tolerance
    if old.deviation is not None and new.deviation is not None and min(old.seeds, new.seeds) > 1:
        chance = _welch(old, new, change)
        return is_large and chance < _SIGNIFICANCE, f"p = {chance:.2g} over seeds"
    if old.rounds is not None and new.rounds is not None:
        is_apart = not (_within(old.rounds, two) or _within(new.rounds, one))
        return is_large and is_apart, "outside of the rounds" if is_apart else "as in some rounds"
    return change > tolerance, f"tolerance {tolerance:.3g}"


def _within(rounds: tuple[float, float], value: float) -> bool:
    return rounds[0] <= value <= rounds[1]


def _welch(old: Figure, new: Figure, change: float) -> float:
    """Return how likely so large a change is by chance, by Welch's t-test."""
    one, two = old.deviation or 0.0, new.deviation or 0.0
    if one == two == 0:
        return 0.0 if change > 0 else 1.0
    found = stats.ttest_ind_from_stats(change, one, old.seeds, 0.0, two, new.seeds, equal_var=False)
    return float(found.pvalue)
