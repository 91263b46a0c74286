"""Looks up texts by language and key."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources

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

        Args:
            key: The key, such as ``total_rate``.
            **values: The values of its placeholders.

        Raises:
            KeyError: There is no such text, or a value is missing.
        """
        text = all_texts()[key][self.language]
        return text.format_map(values) if values else text


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
