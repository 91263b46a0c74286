from __future__ import annotations

import string

import pytest

from advisor.policy import Limit
from advisor.report.run_changes import ChangeKind
from advisor.report.texts import LANGUAGES, Texts, UnknownLanguageError
from advisor.report.texts.tables import all_texts
from fslr.advisor.v1 import policy_pb2


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_text_has_the_same_placeholders_in_each_language() -> None:
    assert len(all_texts()) > 80
    for key, texts in all_texts().items():
        assert texts.keys() == LANGUAGES.keys(), key
        assert all(text.strip() for text in texts.values()), key
        assert len({frozenset(placeholders(text)) for text in texts.values()}) == 1, key


def test_outcomes_limits_and_changes_have_texts() -> None:
    texts = Texts("ja")
    for name, number in policy_pb2.Outcome.items():
        assert not number or all(f"{kind}.{name}" in all_texts() for kind in ("reason", "outcome"))
    assert all(texts(f"limit.{limit.name}") for limit in Limit)
    assert all(f"change.{kind.value}" in all_texts() for kind in ChangeKind)
    states = ("training", "silent", "ended", "finished", "two jobs")
    assert all(texts(f"state.{state}") for state in states)
    assert texts("range", low=1, high=2) == "1〜2"


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UnknownLanguageError, match="in the language 'fr'; choose one of en, ja"):
        Texts("fr")
