"""No figure of the README stands without a source: a stored run, or a reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.page import stored
from benchmarks.report.tables import FIGURES

_ROOT = Path(__file__).parents[3]
_README = (_ROOT / "README.md").read_text("utf-8")
_Results = dict[str, dict[str, Any]]

# What a sentence says, and what it has to say by the stored runs.
_CLAIMS: dict[str, tuple[Callable[[_Results], str], ...]] = {
    r"# once installed, (a minute or two) on (\d+) cores": (
        lambda r: "a minute or two" if r["demo"]["seconds"] < 120 else "longer",
        lambda r: str(r["demo"]["machine"]["cores"]),
    ),
    r"a character GPT of width (\d+), used unchanged at width (\d+) \((\d+) times wider, (\d+) "
    r"steps of Adam": (
        lambda r: str(r["demo"]["base_width"]),
        lambda r: str(r["demo"]["width"]),
        lambda r: str(r["demo"]["width"] // r["demo"]["base_width"]),
        lambda r: str(r["demo"]["steps"]),
    ),
    r"advised ends ([\d.]+) nats below plain": (lambda r: f"{r['demo']['gain']:.2f}",),
    r"by multipliers between ([\d.]+) and ([\d.]+):": (
        lambda r: f"{r['demo']['multiplier_min']:.2g}",
        lambda r: f"{r['demo']['multiplier_max']:.2g}",
    ),
    r"on (\d+) cores of a CPU; the worst tensor of ours includes the noise of (\d+) "
    r"probes": (
        lambda r: str(r["estimator"]["machine"]["cores"]),
        lambda r: str(r["estimator"]["measurements"]),
    ),
}

# Digits that nobody measured: names, addresses, examples.
_NO_FIGURES = (
    r"```python.*?```",  # examples
    r"```\npip.*?```",  # commands
    r"`[^`\n]*`",
    r"\]\([^)]*\)",
    r"<!-- figures: \w+ -->.*?<!-- end -->",  # written from the stored runs
    r"\bFSDP2\b|\bGPT-2\b|\bApache-2\.0\b|protos/fslr/advisor/v1",
)


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("sentence", _CLAIMS, ids=lambda text: text[:30])
def test_a_sentence_of_the_readme_says_what_the_stored_run_says(sentence: str) -> None:
    found = re.findall(sentence, _flat(_README))
    assert len(found) == 1, "the README has no such sentence, or several"
    said = found[0] if isinstance(found[0], tuple) else (found[0],)
    results = stored(_ROOT / FIGURES)
    assert said == tuple(expected(results) for expected in _CLAIMS[sentence])


def without_source(text: str) -> list[str]:
    """Return the words with digits that no claim, no generated table and no exception covers."""
    for pattern in _NO_FIGURES:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    text = _flat(text)
    for sentence in _CLAIMS:
        text = re.sub(sentence, " ", text)
    return re.findall(r"\S*\d\S*", text)


def test_no_figure_of_the_readme_is_without_source() -> None:
    assert without_source(_README) == []


def test_a_figure_without_source_is_found() -> None:
    assert without_source(_README + "\nAdvised runs need 37% less tuning.") == ["37%"]
    (gain,) = re.findall(r"advised ends ([\d.]+) nats below plain", _README)
    said_otherwise = _README.replace(f"{gain} nats", f"some {gain} nats")
    assert without_source(said_otherwise) == [gain]


def test_the_demo_shows_what_it_promises() -> None:
    assert stored(_ROOT / FIGURES)["demo"]["gain"] >= 0.25
