"""Pages of lists: sizes, opaque tokens, label filters."""

from __future__ import annotations

import base64
import binascii
import re

from advisor.policy import InvalidValueError, shown

_DEFAULT_SIZE = 100
_MAX_SIZE = 1_000
_TERM = re.compile(r"labels\.([a-z0-9_.-]{1,63})=(.{0,255})", re.DOTALL)


def page_size(requested: int) -> int:
    """Return the size of a page.

    Raises:
        InvalidValueError: It is below 0.
    """
    if requested < 0:
        raise InvalidValueError("page_size", f"{requested} is below 0")
    return min(requested or _DEFAULT_SIZE, _MAX_SIZE)


def encode_token(cursor: str) -> str:
    """Return the page token of a cursor; empty for none."""
    return base64.urlsafe_b64encode(cursor.encode()).decode() if cursor else ""


def decode_token(token: str, shape: re.Pattern[str]) -> str:
    """Return the cursor of a page token; empty for none.

    Args:
        token: What the caller sent.
        shape: What a cursor of this list looks like; nothing else reaches the store.

    Raises:
        InvalidValueError: It is not a token that this list gave.
    """
    if not token:
        return ""
    try:
        cursor = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        cursor = ""
    if not shape.fullmatch(cursor):
        raise InvalidValueError(
            "page_token", "not a token of this list; begin again without a token"
        )
    return cursor


def parse_filter(text: str) -> dict[str, str]:
    """Return the label pairs of a filter such as ``labels.team=nlp AND labels.size=small``.

    Raises:
        InvalidValueError: It is not such a filter.
    """
    pairs: dict[str, str] = {}
    for term in text.split(" AND ") if text else []:
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise InvalidValueError(
                "filter",
                f"{shown(term)} is not of the form labels.KEY=VALUE; join several by ' AND '",
            )
        if pairs.setdefault(match[1], match[2]) != match[2]:
            raise InvalidValueError("filter", f"labels.{match[1]} is given two values")
    return pairs
