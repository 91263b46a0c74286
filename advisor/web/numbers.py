"""Numbers for the browser: JSON with few digits, and ``null`` where there is no value."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from advisor.policy.arrays import Floats


def rounded(values: Floats, digits: int = 4) -> list[Any]:
    """Return numbers with few significant digits, as nested lists; NaN and infinities stay.

    Args:
        values: The numbers, of any shape.
        digits: Number of significant digits.
    """
    with np.errstate(all="ignore"):
        exponents = np.floor(np.log10(np.abs(values)))
    # Powers of ten beyond these are not numbers of double precision.
    exponents = np.clip(np.where(np.isfinite(exponents), exponents, 0.0), -290, 290)
    shift = digits - 1 - exponents
    with np.errstate(all="ignore"):
        up = np.round(values * 10.0 ** np.maximum(shift, 0)) / 10.0 ** np.maximum(shift, 0)
        down = np.round(values / 10.0 ** np.maximum(-shift, 0)) * 10.0 ** np.maximum(-shift, 0)
    found: list[Any] = np.where(shift >= 0, up, down).tolist()
    return found


def to_json(data: Any) -> bytes:
    """Return JSON; numbers that are not finite become ``null``."""
    try:
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(
            _without_gaps(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    return text.encode()


def _without_gaps(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, list):
        return [_without_gaps(item) for item in data]
    if isinstance(data, dict):
        return {key: _without_gaps(value) for key, value in data.items()}
    return data
