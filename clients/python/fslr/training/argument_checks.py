"""What values of users' arguments are, whatever their type."""

from __future__ import annotations

import math
import operator
from typing import Any


def is_integer(value: Any, *, least: float = -math.inf) -> bool:
    """Return whether a value is an integer, Python's or NumPy's, of at least some number.

    Args:
        value: Any value.
        least: The number.
    """
    try:
        return operator.index(value) >= least
    except TypeError:
        return False
