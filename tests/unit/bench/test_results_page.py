"""The results page and its pictures are what the stored figures say, and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.report import pictures
from benchmarks.report.command import results
from benchmarks.report.page import PAGE, PICTURES, drawn, page
from benchmarks.report.tables import FIGURES, PAGES
from tests.results import ablations, alternatives, case, ideas, transfer, write

_ROOT = Path(__file__).parents[3]


def _links(text: str) -> list[str]:
    return re.findall(r"\]\((?!https?:)([^)#]+)", text)


def _rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_writing_again_changes_nothing_that_is_committed(tmp_path: Path) -> None:
    shutil.copytree(_ROOT / FIGURES, tmp_path / FIGURES)
    for path in PAGES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / path, tmp_path / path)
    results(tmp_path)
    for path in (*PAGES, PAGE):
        assert (tmp_path / path).read_bytes() == (_ROOT / path).read_bytes(), path
    new, old = (
        {file.name: file.read_bytes() for file in (root / PICTURES).glob("*")}
        for root in (tmp_path, _ROOT)
    )
    assert new == old


def test_every_link_of_the_page_leads_somewhere() -> None:
    text = (_ROOT / PAGE).read_text("utf-8")
    links = _links(text)
    assert len(links) > 5
    assert [link for link in links if not (_ROOT / PAGE.parent / link).exists()] == []


def test_what_was_not_measured_has_no_section(tmp_path: Path) -> None:
    some = page(write(tmp_path / "some", ideas=ideas()))
    assert re.findall("^## (.*)", some, re.MULTILINE) == [
        "Beyond the paper",
        "Where they were measured",
    ]
    assert drawn(tmp_path / "some") == {}


def test_every_picture_that_the_page_shows_is_drawn_and_no_other(tmp_path: Path) -> None:
    write(tmp_path, transfer=transfer())
    shown = [Path(link).name for link in _links(page(tmp_path)) if link.endswith(".svg")]
    assert sorted(shown) == sorted(drawn(tmp_path))
    assert "transfer-sweeps-width-depth.svg" in shown


def test_pictures_are_the_same_every_time_and_carry_no_date(tmp_path: Path) -> None:
    write(tmp_path, transfer=transfer())
    first = drawn(tmp_path)
    assert first == drawn(tmp_path)
    for text in first.values():
        ET.fromstring(text)
        assert "dc:date" not in text


def test_one_bad_loss_does_not_press_a_picture_flat() -> None:
    base = {-7.0: 2.4, -6.0: 2.3, -5.0: 2.5}
    plain = {-9.0: 2.0, -8.0: 2.1, -6.0: 500.0}
    low, high = pictures._limits([base, plain], -6.0)
    assert low < 2.0
    assert 2.5 < high < 10.0
    mild = {**plain, -6.0: 3.0}
    assert 3.0 < pictures._limits([base, mild], -6.0)[1] < 3.5  # all of it is shown


def test_another_figure_makes_another_picture(tmp_path: Path) -> None:
    one = drawn(write(tmp_path / "one", transfer={**transfer(), "cases": [case("width")]}))
    moved = case("width", advised=1)
    other = drawn(write(tmp_path / "two", transfer={**transfer(), "cases": [moved]}))
    assert [name for name in one if one[name] == other[name]] == []


def test_a_case_s_row_has_its_figures_with_the_spread_between_seeds(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    found = _rows(text, "width | char GPT | Adam ")
    assert len(found) == 1
    cells = [cell.strip() for cell in found[0].strip("|").split("|")]
    assert cells[:6] == ["width", "char GPT", "Adam", "3", "-3", "+0"]
    of_case = transfer()["cases"][0]
    assert cells[6:] == [
        f"{of_case['regret']:+.3f} ± 0.010",
        *(f"{of_case[f'loss_{name}']:.3f} ± 0.010" for name in ("plain", "advised", "best_plain")),
        "60%",
        "80%",
    ]


def test_the_share_of_cases_within_an_octave_is_told(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    flat = re.sub(r"\s+", " ", text)
    assert "**7 of 8 cases** (88%; the aim is 90%), the plain model's in 3." in flat


def test_a_case_that_fails_is_named_with_its_note(tmp_path: Path) -> None:
    unexplained = case("depth", plain=1, advised=3)
    figures = {**transfer(), "cases": [*transfer()["cases"], unexplained]}
    text = page(write(tmp_path, transfer=figures))
    assert "- **depth: ResMLP, Muon** (-2 octaves): Too few steps." in text
    assert "- **depth: char GPT, Adam** (+3 octaves): not explained yet." in text


def test_a_run_that_diverged_is_a_dash_and_not_a_number(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    (row,) = _rows(text, "width depth | char GPT")
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[8] == "-"
    assert cells[5:7] == [r"-5\*", "+0"]  # the plain model's best one was the last that was tried


def test_case_without_sweeps_or_settings_is_shown_all_the_same(tmp_path: Path) -> None:
    more = {"base", "big", "base_learning_rate", "spread", "sweeps", "at_edge", "search_saved"}
    bare = {key: value for key, value in case("width").items() if key not in more}
    write(tmp_path, transfer={**transfer(), "cases": [bare]})
    assert len(_rows(page(tmp_path), "width | char GPT")) == 1
    assert "transfer-sweeps-width.svg" in drawn(tmp_path)


@pytest.mark.parametrize(
    ("name", "figures", "row"),
    [
        (
            "alternatives",
            alternatives(),
            "| width, res mlp | advised | +0 | -0.004 ± 0.010 | +1.9 | none | 3 |",
        ),
        ("ablations", ablations(), "| **100** | +0 | +0.002 | +1.9 | 3 |"),
        ("ablations", ablations(), "| 25 | +0 | +0.001 | +8.0 | 3 |"),
        (
            "ideas",
            ideas(),
            "| total rate | 1 | +0.010 | +0.012 | no | No better on held-out cases. |",
        ),
    ],
)
def test_a_section_s_row(tmp_path: Path, name: str, figures: dict[str, Any], row: str) -> None:
    assert row in page(write(tmp_path, **{name: figures})).splitlines()


def test_methods_are_told_from_ours_seed_by_seed_or_not_at_all(tmp_path: Path) -> None:
    text = page(write(tmp_path, alternatives=alternatives()))
    # Differences: 0.694, 0.714, 0.704; and 0.044, 0.024, -0.026, which chance alone makes.
    assert "| standard | 1 | +0.704 ± 0.006 |  | width res mlp |" in text
    assert "| muP | 1 | +0.014 ± 0.021, not told apart |  |  |" in text


def test_what_diverged_is_compared_with_nothing(tmp_path: Path) -> None:
    figures = alternatives()
    figures["rows"][0]["regrets"] = []
    assert "| standard | 0 | - |  |  |" in page(write(tmp_path, alternatives=figures))


def test_a_text_cannot_break_its_table(tmp_path: Path) -> None:
    figures = ideas()
    figures["ideas"][0]["text"] = "|J U| instead"
    assert r"| no | \|J U\| instead |" in page(write(tmp_path, ideas=figures))


def test_the_page_says_of_what_commit_and_machine_figures_are(tmp_path: Path) -> None:
    dirty = {**ideas(), "commit": "1" * 40 + "-dirty", "note": "by hand"}
    dirty["machine"] = {**dirty["machine"], "accelerator": "A GPU"}
    one, other = ablations(), ablations()["ablations"][0]
    one["ablations"] = [{**other, "commit": "2" * 40}, {**other, "commit": "3" * 40}]
    text = page(write(tmp_path, ideas=dirty, ablations=one))
    assert "`. by hand\n" in text  # in the section that it is of
    versions = "python 3.12.1, torch 2.13.0+cpu"
    assert (
        "| ideas | 111111111111-dirty | 2026-01-02 | A GPU, A CPU, 2 cores, 24 GiB, 2 threads | "
        f"{versions} |" in text
    )
    assert (
        "| ablations | 222222222222, 333333333333 | 2026-01-02 | "
        f"A CPU, 2 cores, 24 GiB, 2 threads | {versions} |" in text
    )


def test_a_picture_that_nothing_stands_behind_any_more_is_removed(tmp_path: Path) -> None:
    shutil.copytree(_ROOT / FIGURES, tmp_path / FIGURES)
    for path in PAGES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / path, tmp_path / path)
    write(tmp_path / FIGURES, transfer={**transfer(), "cases": [case("width"), case("depth")]})
    results(tmp_path)
    assert (tmp_path / PICTURES / "transfer-sweeps-depth.svg").exists()
    write(tmp_path / FIGURES, transfer={**transfer(), "cases": [case("width")]})
    results(tmp_path)
    left = sorted(path.name for path in (tmp_path / PICTURES).iterdir())
    assert left == ["transfer-regret.svg", "transfer-shift.svg", "transfer-sweeps-width.svg"]
