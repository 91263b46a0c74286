"""Pages of lists: page sizes, opaque page tokens, label filters."""

from __future__ import annotations

import base64
import binascii
import re

from advisor.policy import InvalidValueError, shown
from advisor.registry.profiles import MAX_LABELS

_DEFAULT_SIZE = 100
_MAX_SIZE = 1_000
_TERM = re.compile(
    r'labels\.([a-z0-9_.-]{1,63})=(?:"((?:[^"\\]|\\.)*)"|(?!")(.*?))(?: AND (?=labels\.)|$)',
    re.DOTALL,
)


def page_size(requested: int) -> int:
    """Return the size of a page.

    Raises:
        InvalidValueError: The requested size is below 0.
    """
    if requested < 0:
        raise InvalidValueError("page_size", f"{requested} is below 0")
    return min(requested or _DEFAULT_SIZE, _MAX_SIZE)


def encode_token(cursor: str) -> str:
    """Return the page token of a cursor; empty for an empty cursor."""
    return base64.urlsafe_b64encode(cursor.encode()).decode() if cursor else ""


def decode_token(token: str, pattern: re.Pattern[str]) -> str:
    """Return the cursor of a page token; empty for an empty token.

    Args:
        token: The token that the caller sent.
        pattern: The form of this list's cursors; nothing else reaches the store.

    Raises:
        InvalidValueError: The token is not one of this list.
    """
    if not token:
        return ""
    try:
        cursor = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        cursor = ""
    if not pattern.fullmatch(cursor):
        raise InvalidValueError(
            "page_token", "not a token of this list; start again without a token"
        )
    return cursor


def parse_filter(text: str) -> dict[str, str]:
    """Return the label pairs of a filter such as ``labels.team=nlp AND labels.size=small``.

    A value may be in double quotes, and must be if it contains `` AND labels.``.

    Raises:
        InvalidValueError: The text is not a valid filter.
    """
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise InvalidValueError(
                "filter",
                f"{shown(text[position:])} is not of the form labels.KEY=VALUE; join several with "
                "' AND '",
            )
        key, quoted, plain = match.groups()
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if quoted is None and re.search(r"\sand\s+labels\.", value, re.IGNORECASE):
            raise InvalidValueError(
                "filter", f"{shown(value)} contains a second label; write ' AND ' in capitals"
            )
        if pairs.setdefault(key, value) != value:
            raise InvalidValueError("filter", f"labels.{key} is given two values")
        if len(pairs) > MAX_LABELS:
            raise InvalidValueError(
                "filter", f"more than {MAX_LABELS} labels, the maximum of a profile"
            )
        position = match.end()
    return pairs
