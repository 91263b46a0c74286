"""What values of users' arguments are, whatever their type."""

from __future__ import annotations

import math
import operator
from typing import Any, TypeVar

from fslr.errors import AttachError

_Options = TypeVar("_Options")


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


def checked_options(options: _Options | None, kind: type[_Options], *, package: str) -> _Options:
    """Return what a user passed as measuring options; without any, the defaults.

    Args:
        options: The options, or None.
        kind: Their class.
        package: The package that users import it from.

    Raises:
        AttachError: They are something else.
    """
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise AttachError(
            f"options is {options!r}; it must be a {package}.{kind.__name__}, such as "
            f"{kind.__name__}(probes=4)"
        )
    return options
