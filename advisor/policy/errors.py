"""Errors of the policy."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

from advisor.policy.counts import count_of


class PolicyError(ValueError):
    """Input that the policy refuses."""


_CONTAINERS = reprlib.Repr()
_CONTAINERS.maxlevel = 3
_CONTAINERS.maxstring = _CONTAINERS.maxother = 80
_CONTAINERS.maxlist = _CONTAINERS.maxtuple = _CONTAINERS.maxdict = _CONTAINERS.maxset = 20


def shown(value: object, limit: int = 80) -> str:
    """Return a caller's value for a message: quoted, and truncated to ``limit`` characters."""
    # A container may hold itself, or parts that a YAML file repeats a billion times.
    text = _CONTAINERS.repr(value) if isinstance(value, (list, tuple, dict, set)) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


class InvalidValueError(PolicyError):
    """A value is out of its range or has the wrong length.

    Attributes:
        field: Path of the field that holds the value, such as ``unit_rates[3]``.
        description: What is wrong with the value, and how to fix it.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description

    def under(self, parent: str) -> InvalidValueError:
        """Return the same error with ``parent`` in front of the field's path."""
        return InvalidValueError(f"{parent}.{self.field}", self.description)


class LayoutMismatchError(PolicyError):
    """Groups of a layout have no counterpart in the profile.

    Attributes:
        unmatched: Names of the groups.
    """

    def __init__(self, unmatched: Sequence[str], total: int) -> None:
        first = ", ".join(name[:80] for name in unmatched[:10])
        more = ", ..." if len(unmatched) > 10 else ""
        # If no group has a counterpart, there is nothing to advise under any rule.
        hold = ", or set the policy's unmatched rule to hold" if len(unmatched) < total else ""
        super().__init__(
            f"{len(unmatched)} of {count_of(total, 'group')} "
            f"{'has' if len(unmatched) == 1 else 'have'} no counterpart in the profile: "
            f"{first}{more}. "
            "Use a profile of the same architecture, or give the profile group aliases for them "
            f"(or role templates, if numbers in their names are block indices){hold}"
        )
        self.unmatched = tuple(unmatched)
