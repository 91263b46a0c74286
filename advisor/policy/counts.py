"""Numbers with their nouns, for messages."""

from __future__ import annotations


def count_of(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 group`` or ``12 groups``.

    Args:
        count: The number.
        noun: The noun in the singular. Its plural ends in s, and in ies instead of y.
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"
