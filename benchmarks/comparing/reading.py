"""A file's figures, flat: a path each, with the spread that the file tells of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.comparing.kinds import Path
from benchmarks.provenance import PROVENANCE

# What tells entries of a list apart, where they have it.
_NAMES = (
    "axis", "model", "optimizer", "method", "question", "setting", "role", "name", "kind",
    "blocks", "width", "groups",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        value: A number, or None where there is no finite one.
        text: What stands in place of a number.
        rounds: The least and the largest that it was in repeated rounds.
        deviation: Sample standard deviation between seeds.
        seeds: How many there were.
    """

    value: float | None
    text: str | None = None
    rounds: tuple[float, float] | None = None
    deviation: float | None = None
    seeds: int = 0


def figures_of(content: Mapping[str, Any]) -> dict[Path, Figure]:
    """Return all figures of a file by path, without its provenance.

    Args:
        content: The file's content.
    """
    return dict(_walk((), {k: v for k, v in content.items() if k not in PROVENANCE}))


def _walk(path: Path, value: Any) -> Iterator[tuple[Path, Figure]]:
    for name, each in _entries(value):
        below = (*path, name)
        if isinstance(each, dict | list):
            yield from _walk(below, each)
        elif not isinstance(each, bool):
            yield below, _figure(name, each, value)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
        return
    met: dict[str, int] = {}
    for index, each in enumerate(value):
        name = _name(each) if isinstance(each, dict) else ""
        name = name or str(index)
        met[name] = met.get(name, 0) + 1
        yield name if met[name] == 1 else f"{name} ({met[name]})", each


def _name(entry: Mapping[str, Any]) -> str:
    return ", ".join(str(entry[key]) for key in _NAMES if isinstance(entry.get(key), str | int))


def _figure(name: str, value: Any, beside: Any) -> Figure:
    if isinstance(value, str):
        return Figure(None, text=value)
    number = float(value) if value is not None and math.isfinite(value) else None
    if not isinstance(beside, dict):
        return Figure(number)
    spread = (beside.get("spread") or {}).get(name, beside.get(f"{name}_spread"))
    if isinstance(spread, int | float):
        seeds = _count(beside.get("seeds", beside.get("regrets")))
        return Figure(number, deviation=float(spread), seeds=seeds)
    rounds = beside.get(f"{name.removesuffix('_ratio')}_spread")
    if isinstance(rounds, list) and len(rounds) == 2:
        return Figure(number, rounds=(float(rounds[0]), float(rounds[1])))
    return Figure(number)


def _count(seeds: int | list[int] | None) -> int:
    return len(seeds) if isinstance(seeds, list) else seeds or 0
