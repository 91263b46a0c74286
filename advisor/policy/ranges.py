"""Ranges of numbers, each declared once with the words of its error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import InvalidValueError

MAX_STEP = 2**53  # larger steps are not exact as floating-point numbers
_LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Range:
    """A range of finite numbers.

    Attributes:
        complaint: What an error says of a number outside, such as ``is below 0``.
        low: The lowest number.
        high: The highest number.
        excludes_low: Whether ``low`` itself is outside.
    """

    complaint: str
    low: float = -_LARGEST
    high: float = _LARGEST
    excludes_low: bool = False

    def contains(self, value: float) -> bool:
        """Return whether a number is inside."""
        return self.low <= value <= self.high and not (self.excludes_low and value == self.low)

    def contains_each(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether each number of an array is inside, of the array's shape."""
        inside: NDArray[np.bool_] = np.isfinite(values)
        if self.low > -_LARGEST:
            inside &= (values > self.low) if self.excludes_low else (values >= self.low)
        if self.high < _LARGEST:
            inside &= values <= self.high
        return inside

    def check(self, field: str, value: float) -> None:
        """Refuse a number outside.

        Args:
            field: Path of the field that holds the number.
            value: The number.

        Raises:
            InvalidValueError: The number is outside.
        """
        if not self.contains(value):
            raise InvalidValueError(field, f"{value} {self.complaint}")

    def check_each(self, field: str, values: NDArray[Any]) -> None:
        """Refuse an array with a number outside.

        Args:
            field: Path of the field that holds the array.
            values: The numbers, of one dimension.

        Raises:
            InvalidValueError: A number is outside; the path names the first one.
        """
        inside = self.contains_each(values)
        if np.count_nonzero(inside) < inside.size:
            i = int(np.argmin(inside))
            raise InvalidValueError(f"{field}[{i}]", f"{values[i]} {self.complaint}")


FINITE = Range("is not finite")
NON_NEGATIVE = Range("is not a finite number of at least 0", low=0)
POSITIVE = Range("is not a finite number above 0", low=0, excludes_low=True)
COUNT = Range("is below 0", low=0)
STEP = Range(f"is not in [0, {MAX_STEP}]", low=0, high=MAX_STEP)
