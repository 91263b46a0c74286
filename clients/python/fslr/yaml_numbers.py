"""Numbers that remember how they were written, so that the commit 1234567e1 stays that text."""

from __future__ import annotations

from typing import Self


class IntLiteral(int):
    """An integer read from a file.

    Attributes:
        text: The number as written in the file.
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """Parse an integer."""
        number = super().__new__(cls, text)
        number.text = text
        return number


class FloatLiteral(float):
    """A floating-point number read from a file.

    Attributes:
        text: The number as written in the file.
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """Parse a number, in the notation of JSON or YAML (``.inf``, ``.nan``)."""
        number = super().__new__(cls, text.replace(".inf", "inf").replace(".nan", "nan"))
        number.text = text
        return number
