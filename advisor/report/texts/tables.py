"""Looks up texts by language and key."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from numbers import Integral

LANGUAGES: Mapping[str, str] = {"en": "English", "ja": "日本語"}
"""The languages: their codes as in HTML's ``lang``, and their own names."""

_MAX_SHOWN = 20  # characters of an unknown language


class UnknownLanguageError(ValueError):
    """There are no texts in a language."""


class Texts:
    """The texts of one language.

    Args:
        language: ``en`` or ``ja``.

    Attributes:
        language: The language's code.

    Raises:
        UnknownLanguageError: There are no texts in this language.
    """

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise UnknownLanguageError(
                f"there are no texts in the language {language[:_MAX_SHOWN]!r}; choose one of "
                f"{', '.join(LANGUAGES)}"
            )
        self.language = language

    def __call__(self, key: str, /, **values: object) -> str:
        """Return a text with its placeholders filled in.

        A placeholder such as ``{count:role|roles}`` is the first word if the number is 1, else the
        second.

        Args:
            key: The key, such as ``total_rate``.
            **values: The values of its placeholders.

        Raises:
            KeyError: There is no such text, or a value is missing.
        """
        text = all_texts()[key][self.language]
        if not values:
            return text
        return text.format_map({
            name: _Count(value) if isinstance(value, Integral) else value
            for name, value in values.items()
        })


class _Count(int):
    """A number that chooses between a word for one and a word for all other numbers."""

    def __format__(self, words: str) -> str:
        one, bar, others = words.partition("|")
        if not bar:
            return super().__format__(words)
        return one if self == 1 else others


@functools.cache
def all_texts() -> dict[str, dict[str, str]]:
    """Return every text by key and language.

    Raises:
        ValueError: Two files have the same key.
    """
    found: dict[str, dict[str, str]] = {}
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text("utf-8"))
        if both := found.keys() & table.keys():
            raise ValueError(f"{file.name} repeats the keys {', '.join(sorted(both))}")
        found.update(table)
    return found
