"""Series as a line of block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int, *, from_zero: bool = False) -> str:
    """Return a series as a line of block characters, as high as the values.

    If there are more values than characters, each character stands for the value farthest from the
    one before it, so that no peak is lost.

    Args:
        values: The values; None, or a value that is not finite: a gap.
        width: Maximum number of characters, at least 1.
        from_zero: Whether the lowest block stands for 0, rather than for the smallest value.
    """
    known = [None if v is None or not math.isfinite(v) else v for v in values]
    count = min(width, len(known))
    picked: list[float | None] = []
    last: float | None = None
    for i in range(count):
        chunk = known[i * len(known) // count : (i + 1) * len(known) // count]
        numbers = [value for value in chunk if value is not None]
        near = last if last is not None else (numbers[0] if numbers else 0.0)
        value = max(numbers, key=lambda v: abs(v - near), default=None)
        picked.append(value)
        last = value if value is not None else last
    numbers = [value for value in picked if value is not None]
    if not numbers:
        return " " * count
    low = min([0.0, *numbers]) if from_zero else min(numbers)
    high = max(numbers)
    return "".join(" " if v is None else _block(v, low, high) for v in picked)


def _block(value: float, low: float, high: float) -> str:
    if high == low:
        return _BLOCKS[len(_BLOCKS) // 2] if value else _BLOCKS[0]
    return _BLOCKS[min(int((value - low) / (high - low) * len(_BLOCKS)), len(_BLOCKS) - 1)]
