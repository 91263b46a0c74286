"""Control characters in text from outside: a terminal that prints them would act on them."""

from __future__ import annotations

import re

from advisor.policy.errors import InvalidValueError, shown

_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # line breaks and tabs are allowed


def check_controls(field: str, text: str) -> None:
    """Refuse control characters in a name, line breaks included: lists print one name per line.

    Raises:
        InvalidValueError: The name contains a control character.
    """
    _refuse(_IN_NAMES, field, text)


def check_text(field: str, text: str) -> None:
    """Refuse control characters in a text, except line breaks and tabs.

    Raises:
        InvalidValueError: The text contains a control character.
    """
    _refuse(_IN_TEXT, field, text)


def without_controls(text: str) -> str:
    """Return a text with U+FFFD for each control character, except line breaks and tabs."""
    return _IN_TEXT.sub("\ufffd", text)


def _refuse(forbidden: re.Pattern[str], field: str, text: str) -> None:
    found = forbidden.search(text)
    if found:
        raise InvalidValueError(
            field, f"{shown(text)} holds the control character {found[0]!a}; take it out"
        )
