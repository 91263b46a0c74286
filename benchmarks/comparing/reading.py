"""Reads the figures of a file by path, with their spread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.comparing.kinds import Path
from benchmarks.provenance import PROVENANCE

# The keys that identify an entry of a list.
_NAMES = (
    "recipe", "axis", "case_set", "model", "optimizer", "method", "question", "setting", "role",
    "name", "kind", "blocks", "width", "groups",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        value: The number; None if it is missing or not finite.
        text: The text, if the figure is not a number.
        rounds: Lowest and highest value over repeated rounds.
        deviation: Sample standard deviation over seeds.
        seeds: Number of seeds.
    """

    value: float | None
    text: str | None = None
    rounds: tuple[float, float] | None = None
    deviation: float | None = None
    seeds: int = 0


def figures_of(content: Mapping[str, Any]) -> dict[Path, Figure]:
    """Return the figures of a file by path, without its provenance.

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
    counts: dict[str, int] = {}
    for index, each in enumerate(value):
        name = _name(each) if isinstance(each, dict) else ""
        name = name or str(index)
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name} ({counts[name]})", each


def _name(entry: Mapping[str, Any]) -> str:
    return ", ".join(str(entry[key]) for key in _NAMES if isinstance(entry.get(key), str | int))


def _figure(name: str, value: Any, siblings: Any) -> Figure:
    if isinstance(value, str):
        return Figure(None, text=value)
    number = float(value) if value is not None and math.isfinite(value) else None
    if not isinstance(siblings, dict):
        return Figure(number)
    spread = (siblings.get("spread") or {}).get(name, siblings.get(f"{name}_spread"))
    if isinstance(spread, int | float):
        seeds = _count(siblings.get("seeds", siblings.get("regrets")))
        return Figure(number, deviation=float(spread), seeds=seeds)
    rounds = siblings.get(f"{name.removesuffix('_ratio')}_spread")
    if isinstance(rounds, list) and len(rounds) == 2:
        return Figure(number, rounds=(float(rounds[0]), float(rounds[1])))
    return Figure(number)


def _count(seeds: int | list[int] | None) -> int:
    return len(seeds) if isinstance(seeds, list) else seeds or 0
