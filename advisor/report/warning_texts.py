"""Warnings of the service in the reader's language.

The contract carries a warning as a kind and an English sentence with its values. Texts keep that
sentence with placeholders, so a stored warning is recognized by its wording, its values are read
from it, and it is written in another language. A wording that is not known, as of a newer service,
is shown as it came, after its subject.
"""

from __future__ import annotations

import functools
import re
import string
from typing import Final

from advisor.report.texts import Texts
from advisor.report.texts.tables import all_texts
from fslr.advisor.v1 import advisor_service_pb2 as pb

_PREFIX, _SUBJECT, _UNKNOWN = "warning.", "warning.subject.", "warning.unknown"
_NESTED: Final = "warning"  # a placeholder for a warning inside of a warning
_GROWING: Final = "growing"  # a placeholder for what grows from the base to the run
_GROWTHS = {
    "depth": "recipe.growing.depth",
    "fan-in": "recipe.growing.fan_in",
    "rank": "recipe.growing.rank",
    "the number of experts": "recipe.growing.experts",
}
_DIFFERENCES: Final = "differences"  # a placeholder for roles with two numbers each
_DIFFERENCE = re.compile(r" \(measured (\S+), recipe (\S+)\)")
_MORE = re.compile(r"^(?P<names>.*) and (?P<count>\d+) more(?: roles)?$", re.DOTALL)


def warning_text(message: str, texts: Texts, kind: int = pb.WARNING_KIND_UNSPECIFIED) -> str:
    """Return a warning of the service in a language.

    Args:
        message: The warning's message, in English.
        texts: The language's texts.
        kind: Its ``WarningKind``; unspecified for a warning that has none.
    """
    if texts.language == "en":
        return message
    for key, pattern in _patterns():
        found = pattern.fullmatch(message)
        if found is not None:
            values = {
                name: _translated(name, value, texts) for name, value in found.groupdict().items()
            }
            return texts(key, **values)
    return texts(_UNKNOWN, subject=texts(_subject(kind)), message=message)


def _translated(name: str, value: str, texts: Texts) -> str:
    if name == _NESTED:
        return warning_text(value, texts)
    if name == _GROWING:
        return texts(_GROWTHS[value]) if value in _GROWTHS else value
    more = _MORE.match(value)
    names = value if more is None else more["names"]
    if name == _DIFFERENCES:
        names = _DIFFERENCE.sub(
            lambda found: texts("recipe.difference", role="", measured=found[1], recipe=found[2]),
            names,
        )
    elif name != "names":
        return value
    return names if more is None else texts("check.more", names=names, count=more["count"])


def _subject(kind: int) -> str:
    """Return the key of a kind's subject; of a newer service's kind, that of no kind."""
    known = pb.WarningKind.DESCRIPTOR.values_by_number.get(kind)
    name = "UNSPECIFIED" if known is None else known.name.removeprefix("WARNING_KIND_")
    key = _SUBJECT + name
    return key if key in all_texts() else _SUBJECT + "UNSPECIFIED"


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the key and the pattern of each known warning, the longest wording first.

    A shorter wording may be part of a longer one, and its values would swallow the rest.
    """
    sentences = {
        key: text["en"]
        for key, text in all_texts().items()
        if key.startswith(_PREFIX) and not key.startswith(_SUBJECT) and key != _UNKNOWN
    }
    ordered = sorted(sentences, key=lambda key: -len(sentences[key]))
    return tuple((key, re.compile(_pattern(sentences[key]), re.DOTALL)) for key in ordered)


def _pattern(sentence: str) -> str:
    """Return the pattern of a sentence; a value that occurs twice is the same in both places."""
    parts, seen = [], set[str]()
    for literal, name, words, _ in string.Formatter().parse(sentence):
        parts.append(re.escape(literal))
        if words:  # such as group|groups
            parts.append(f"(?:{'|'.join(map(re.escape, words.split('|')))})")
        elif name is not None:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>.+?)")
            seen.add(name)
    return "".join(parts)
