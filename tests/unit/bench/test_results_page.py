"""The results page and its pictures, rendered from made-up figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.report import pictures
from benchmarks.report.command import results
from benchmarks.report.paths import FIGURES, PAGES_WITH_BLOCKS, PICTURES
from benchmarks.report.results_page import results_page
from benchmarks.report.stored import load_figures
from tests.results import (
    ablations,
    alternatives,
    case,
    frameworks,
    ideas,
    practice,
    transfer,
    web,
    write,
)


def page(folder: Path) -> str:
    return results_page(load_figures(folder))


def drawn(folder: Path) -> dict[str, str]:
    return pictures.draw_pictures(load_figures(folder))


def _links(text: str) -> list[str]:
    return re.findall(r"\]\((?!https?:)([^)#]+)", text)


def _rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_a_file_that_is_not_stored_has_no_section(tmp_path: Path) -> None:
    some = page(write(tmp_path / "some", ideas=ideas()))
    assert re.findall("^## (.*)", some, re.MULTILINE) == [
        "Beyond the paper",
        "Where the figures were measured",
    ]
    assert drawn(tmp_path / "some") == {}


def test_the_page_shows_exactly_the_pictures_that_are_drawn(tmp_path: Path) -> None:
    write(tmp_path, transfer=transfer())
    shown = [Path(link).name for link in _links(page(tmp_path)) if link.endswith(".svg")]
    assert sorted(shown) == sorted(drawn(tmp_path))
    assert "transfer-sweeps-width-depth.svg" in shown


def test_pictures_are_reproducible_and_have_no_date(tmp_path: Path) -> None:
    write(tmp_path, transfer=transfer())
    first = drawn(tmp_path)
    assert first == drawn(tmp_path)
    for text in first.values():
        ET.fromstring(text)
        assert "dc:date" not in text


def test_one_high_loss_does_not_flatten_a_picture() -> None:
    base = {-7.0: 2.4, -6.0: 2.3, -5.0: 2.5}
    plain = {-9.0: 2.0, -8.0: 2.1, -6.0: 500.0}
    low, high = pictures._loss_limits([base, plain], -6.0)
    assert low < 2.0
    assert 2.5 < high < 10.0
    mild = {**plain, -6.0: 3.0}
    assert 3.0 < pictures._loss_limits([base, mild], -6.0)[1] < 3.5  # all losses are shown


def test_a_changed_figure_changes_every_picture(tmp_path: Path) -> None:
    one = drawn(write(tmp_path / "one", transfer=transfer([case("width")])))
    moved = case("width", advised=1)
    other = drawn(write(tmp_path / "two", transfer=transfer([moved])))
    assert [name for name in one if one[name] == other[name]] == []


def test_the_row_of_a_case_shows_its_figures_with_their_spread(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    found = _rows(text, "width | char GPT | Adam ")
    assert len(found) == 1
    cells = [cell.strip() for cell in found[0].strip("|").split("|")]
    assert cells[:6] == ["width", "char GPT", "Adam", "3", "-3", "+0"]
    # Regret, the losses of the plain and the advised model, and the best of the plain sweep.
    assert cells[6:10] == [
        "+0.011 ± 0.007",
        "4.077 ± 0.004",
        "2.003 ± 0.004",
        "1.992 ± 0.003",
    ]
    assert cells[10:] == ["70%", "80%"]


def test_methods_are_compared_case_by_case_and_over_all_cases(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    overall = _rows(text, "measured |")
    shifts, regrets, _ = _rows(text, "depth: ResMLP, Muon ")
    assert overall == ["| measured | 8 | 0 | 0 of 0 | - | 7 of 8 | +0.004 |"]
    end = " | 150 | 3 | **-1.05 [-1.20, -0.89]** | **-1.99 [-2.24, -1.73]** |"  # beyond an octave
    assert shifts.endswith(end)
    assert regrets.endswith(" | +0.033 [+0.018, +0.048] | +0.964 [+0.843, +1.085] |")


def test_the_summary_counts_cases_within_an_octave(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    flat = re.sub(r"\s+", " ", text)
    assert "**7 of 8 cases** (88%; the aim is 95%), the plain model's in 1 of 8. 0 more" in flat


def test_cases_that_miss_the_aim_are_listed_with_their_notes(tmp_path: Path) -> None:
    explained = case("sequence_length", "char_gpt_pre", "Adam", plain=1, advised=3)
    missed = case("depth", "ResMLP", "Muon", plain=-1, advised=-2, gain=-0.1)
    text = page(write(tmp_path, transfer=transfer([missed, explained])))
    assert "- **depth: ResMLP, Muon** (-2 octaves): Not explained yet." in text
    assert "- **sequence length: char_gpt_pre, Adam** (+3 octaves): A step of the scaled" in text


def test_a_diverged_run_is_shown_as_a_dash(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    (row,) = _rows(text, "width depth | char GPT")
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[8] == "-"
    assert cells[5:7] == [
        r"-5\*",
        "+0",
    ]  # the plain model's best learning rate is at the edge of the sweep


def test_a_case_without_the_default_method_has_no_picture(tmp_path: Path) -> None:
    only = case("width")
    only["methods"].pop()
    write(tmp_path, transfer=transfer([only]))
    assert "No case has been measured" in page(tmp_path)
    assert len(_rows(page(tmp_path), "width: char GPT, Adam")) == 2
    assert drawn(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "figures", "row"),
    [
        (
            "practice",
            practice(),
            "| gpt2-tied | 2.000 | 2.250 | 1.630 | 1.700 | +0.070 ± 0.030 | +0.100 | 0.12 to 2.5 |",
        ),
        (
            "practice",
            practice(),
            ("| post-norm (harmed) | 2.000 | 2.250 | 1.630 | - | - ± 0.030 | - | 0.12 to 2.5 |"),
        ),
        (
            "alternatives",
            alternatives(),
            "| width, res mlp | advised | +0 | -0.004 ± 0.010 | +1.9 | none | 3 |",
        ),
        ("frameworks", frameworks(), "| cost in gradients, 1024 examples of 1 position | 0.91 |"),
        ("web", web(), "| first view in a browser, nothing cached | 0.81 s |"),
        (
            "web",
            web(),
            (
                "| RPCs per second with 200 open pages, to those without a page | "
                "0.94 (0.91 to 0.99) |"
            ),
        ),
        ("ablations", ablations(), "| **100** | +0 | +0.002 | +1.9 | 3 |"),
        ("ablations", ablations(), "| 25 | +0 | +0.001 | +8.0 | 3 |"),
        (
            "ideas",
            ideas(),
            (
                "| total rate | 1 | +0.010 | +0.012 | not in the policy | "
                "no significant difference: +0.0020 ± 0.0030 nats |"
            ),
        ),
    ],
)
def test_the_row_of_a_section(tmp_path: Path, name: str, figures: dict[str, Any], row: str) -> None:
    assert row in page(write(tmp_path, **{name: figures})).splitlines()


def test_methods_are_compared_with_ours_by_seed(tmp_path: Path) -> None:
    text = page(write(tmp_path, alternatives=alternatives()))
    # Differences: 0.694, 0.714, 0.704; and 0.044, 0.024, -0.026, which is within the noise.
    assert "| standard | 1 | +0.704 ± 0.006 |  | width res mlp |" in text
    assert "| muP | 1 | +0.014 ± 0.021, not significant |  |  |" in text


def test_a_diverged_method_is_not_compared(tmp_path: Path) -> None:
    figures = alternatives()
    figures["rows"][0]["regrets"] = []
    assert "| standard | 0 | - |  |  |" in page(write(tmp_path, alternatives=figures))


def test_a_pipe_in_a_cell_is_escaped(tmp_path: Path) -> None:
    figures = ideas()
    figures["ideas"][0]["name"] = "|J U| instead"
    assert r"| \|J U\| instead | 1 |" in page(write(tmp_path, ideas=figures))


def test_the_page_lists_the_commit_and_the_machine_of_each_file(tmp_path: Path) -> None:
    dirty = {**ideas(), "commit": "1" * 40 + "-dirty", "note": "by hand"}
    dirty["machine"] = {**dirty["machine"], "accelerator": "A GPU"}
    one, other = ablations(), ablations()["ablations"][0]
    one["ablations"] = [{**other, "commit": "2" * 40}, {**other, "commit": "3" * 40}]
    text = page(write(tmp_path, ideas=dirty, ablations=one))
    assert "`. by hand\n" in text  # in its own section
    versions = "python 3.12.1, torch 2.13.0+cpu"
    assert (
        "| ideas | 111111111111-dirty | 2026-01-02 | A GPU, A CPU, 2 cores, 24 GiB, 2 threads | "
        f"{versions} |" in text
    )
    assert (
        "| ablations | 222222222222, 333333333333 | 2026-01-02 | "
        f"A CPU, 2 cores, 24 GiB, 2 threads | {versions} |" in text
    )


def test_a_picture_without_figures_is_removed(tmp_path: Path) -> None:
    for path in PAGES_WITH_BLOCKS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("a page without blocks\n", "utf-8")
    write(tmp_path / FIGURES, transfer=transfer([case("width"), case("depth")]))
    results(tmp_path)
    assert (tmp_path / PICTURES / "transfer-sweeps-depth.svg").exists()
    write(tmp_path / FIGURES, transfer=transfer([case("width")]))
    results(tmp_path)
    left = sorted(path.name for path in (tmp_path / PICTURES).iterdir())
    assert left == ["transfer-regret.svg", "transfer-shift.svg", "transfer-sweeps-width.svg"]
