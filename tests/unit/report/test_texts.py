from __future__ import annotations

import json
import re
import string
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

import advisor
from advisor.document.run_report import LIMITS, WORDS
from advisor.policy import Limit
from advisor.report.check import Status, check_rows
from advisor.report.checked_run import CheckedRun
from advisor.report.profiles import profile_facts
from advisor.report.run_changes import ChangeKind
from advisor.report.texts import LANGUAGES, Texts, UnknownLanguageError
from advisor.report.texts.tables import all_texts
from advisor.report.words import format_number
from advisor.web.errors import STATUSES
from advisor.web.script_texts import script_texts
from fslr.advisor.v1 import policy_pb2, profile_pb2, profile_service_pb2, run_service_pb2


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_text_has_the_same_placeholders_in_each_language() -> None:
    assert len(all_texts()) > 80
    for key, texts in all_texts().items():
        assert texts.keys() == LANGUAGES.keys(), key
        assert all(text.strip() for text in texts.values()), key
        assert len({frozenset(placeholders(text)) for text in texts.values()}) == 1, key


def computed_keys() -> set[str]:
    """Return the keys that the code puts together, from what it puts them together of."""
    outcomes = [name for name, number in policy_pb2.Outcome.items() if number]
    run = run_service_pb2.Run()
    run.opening.layout.groups.add(name="a")
    checks = [row.check for row in check_rows([CheckedRun.of(run, [])])]
    parts = ("title", "needs", "found", "failed", "remedy")
    pages = {*STATUSES.values(), HTTPStatus.INTERNAL_SERVER_ERROR} - {HTTPStatus.UNAUTHORIZED}
    facts = profile_facts(profile_service_pb2.GetProfileResponse(), known_only=False)
    return {
        *(f"{kind}.{name}" for kind in ("reason", "outcome") for name in outcomes),
        *(f"limit.{limit.name}" for limit in Limit),
        *(f"change.{kind.value}" for kind in ChangeKind),
        *(f"state.{state}" for state in ("training", "silent", "ended", "finished", "two jobs")),
        *(f"check.{check}.{part}" for check in checks for part in parts),
        *(f"check.status.{status.value}" for status in Status),
        *(f"page.error.{status.name.lower()}" for status in pages),
        *(f"profile.fact.{fact.key}" for fact in facts),
        *(f"provenance.{name}" for name in profile_pb2.Provenance.DESCRIPTOR.fields_by_name),
        *(f"word.{word}{part}" for word in WORDS for part in ("", ".meaning")),
        *(f"document.limits.{number}" for number in LIMITS),
        # tests/unit/report/test_warning_texts.py proves that each of them is used
        *(key for key in all_texts() if key.startswith("warning.")),
    }


def test_every_text_is_used_and_every_text_that_is_asked_for_exists() -> None:
    root = Path(advisor.__file__).parent
    suffixes = {".py", ".js", ".html", ".j2"}
    files = [f for f in root.rglob("*") if f.suffix in suffixes and "vendor" not in f.parts]
    source = "\n".join(file.read_text("utf-8") for file in files)
    calls = set(re.findall(r'\b(?:t|texts|_TEXTS)\(\s*"([\w.-]+)"(?! [~%])', source))
    in_scripts = set(re.findall(r"\btexts\.(\w+)", source)) & all_texts().keys()
    names = set(re.findall(r'"([\w-]+\.[\w.-]+)"', source))
    computed = computed_keys()
    assert all_texts().keys() - calls - in_scripts - names - computed == set()
    assert (calls | computed) - all_texts().keys() == set()


def test_scripts_get_the_texts_that_they_use_and_no_others() -> None:
    static = Path(advisor.__file__).parent / "web" / "static"
    source = "\n".join(file.read_text("utf-8") for file in static.glob("*.js"))
    found = re.findall(r'\btexts(?:\.(\w+)|\["([\w.]+)"\])|"([a-z_]+\.axis)"', source)
    used = {key for keys in found for key in keys if key}
    assert used == json.loads(script_texts(Texts("ja"))).keys()


def test_placeholders_are_filled_in() -> None:
    assert Texts("ja")("range", low=1, high=2) == "1〜2"


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (1, "1 earlier measurement has a different layout and is left out."),
        (2, "2 earlier measurements have a different layout and are left out."),
        (np.int64(1), "1 earlier measurement has a different layout and is left out."),
    ],
)
def test_words_agree_with_their_number(count: int, sentence: str) -> None:
    assert Texts("en")("page.left_out", count=count) == sentence


def test_a_number_has_one_form_everywhere() -> None:
    numbers = [5.9e-5, -3e-10, 0.00012, 0, 9999.6, 12345.6, 1e7]
    words = ["5.9e-05", "-3e-10", "0.00012", "0", "10000", "12350", "1e+07"]
    assert [format_number(number) for number in numbers] == words


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UnknownLanguageError, match="in the language 'fr'; choose one of en, ja"):
        Texts("fr")
