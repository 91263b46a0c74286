"""Texts for people, in English and Japanese: of pages, reports and the terminal.

Each TOML file is about one subject. A key has the text in each language, with placeholders such as
``{count}``. Nothing here renders, and nothing here computes.
"""

from advisor.report.texts.tables import LANGUAGES, Texts, UnknownLanguageError

__all__ = ["LANGUAGES", "Texts", "UnknownLanguageError"]
