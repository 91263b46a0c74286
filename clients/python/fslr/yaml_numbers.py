"""Numbers of files that remember how they were written: the commit 1234567e1 is a text."""

from __future__ import annotations

from typing import Self


class WrittenInt(int):
    """An integer of a file.

    Attributes:
        text: As it stands there.
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """Return the number of a text."""
        number = super().__new__(cls, text)
        number.text = text
        return number


class WrittenFloat(float):
    """A floating-point number of a file.

    Attributes:
        text: As it stands there.
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """Return the number of a text."""
        number = super().__new__(cls, text.replace(".inf", "inf").replace(".nan", "nan"))
        number.text = text
        return number
