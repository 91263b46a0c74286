"""The results page and its pictures, rendered from made-up figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.report import pictures
from benchmarks.report.command import results
from benchmarks.report.methods import not_measured, unmeasured
from benchmarks.report.paths import FIGURES, PAGES_WITH_BLOCKS, PICTURES
from benchmarks.report.results_page import results_page
from benchmarks.report.stored import load_figures
from benchmarks.report.verdicts import claiming_cases, verdicts
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.methods import DEFAULT, METHODS, method_of
from benchmarks.transfer.records import identity
from benchmarks.transfer.results import document, with_figures
from tests.results import (
    PROVENANCE,
    ablations,
    case,
    frameworks,
    ideas,
    practice,
    sweep,
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


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


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
    assert shown[0] == "transfer-methods.svg"
    assert "transfer-sweeps-width-depth.svg" in shown


@pytest.fixture(scope="module")
def of_one_case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pictures of one case."""
    return drawn(write(tmp_path_factory.mktemp("one"), transfer=transfer([case("width")])))


def test_pictures_are_reproducible_and_have_no_date(
    of_one_case: dict[str, str], tmp_path: Path
) -> None:
    assert of_one_case == drawn(write(tmp_path, transfer=transfer([case("width")])))
    for text in of_one_case.values():
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


def test_a_changed_figure_changes_every_picture(
    of_one_case: dict[str, str], tmp_path: Path
) -> None:
    moved = case("width", advised=1)
    other = drawn(write(tmp_path, transfer=transfer([moved])))
    assert [name for name in of_one_case if of_one_case[name] == other[name]] == []


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


def test_methods_are_compared_case_by_case_by_axis_and_over_all_cases(tmp_path: Path) -> None:
    text = page(write(tmp_path, transfer=transfer()))
    overall = _rows(text, "hybrid (depth-standard) |")
    regrets, shifts, _ = _rows(text, "depth: ResMLP, Muon ")
    assert overall == [
        "| hybrid (depth-standard) | 8 | 7 of 8 (88%) | 0 | +0.004 | 0 | - | - | - |"
    ]
    end = " | 150 | 3 | **-1.05 [-1.20, -0.89]** | **-1.99 [-2.24, -1.73]** |"  # beyond an octave
    assert shifts.endswith(end)
    assert regrets.endswith(" | +0.033 [+0.018, +0.048] | +0.964 [+0.843, +1.085] |")
    (depth,) = _rows(text, "**depth** |")
    assert depth.startswith("| **depth** | 2 | +0.452 [+0.389, +0.514] |")  # +0.871 and +0.033
    (both,) = _rows(text, "**width and depth** |")
    assert both.startswith("| **width and depth** | 1 | diverged | +0.0")
    assert (
        "hybrid (depth-standard) is better beyond the noise of seeds for: width, width and depth. "
        "It is worse for: none. These cases do not decide for: depth, LoRA rank. Over all cases, "
        "those that chose the method included, it is worse for: none. Not measured in claiming "
        "cases: larger initial weights, sequence length, batch size, duration, experts."
    ) in _flat(text)
    (verdict,) = _rows(text, "width | 4 claiming |")
    assert verdict.endswith("| cannot tell | better | 4, 0, 0 |")


def test_a_row_over_all_cases_is_left_out_only_if_the_claiming_cases_say_the_same() -> None:
    def row(case_set: str, other: str, verdict: str) -> dict[str, Any]:
        return {
            "axis": "depth",
            "case_set": case_set,
            "method": f"{DEFAULT} - {other}",
            "cases": 1,
            "difference": None if verdict == "better" else 0.02,
            "difference_interval": [0.01, 0.03],
            "verdict": verdict,
            "in_these_cases": {"verdict": verdict},
            "by_case": {"better": 0, "worse": 1, "cannot tell": 0},
            "is_best_alternative": True,
        }

    claiming = row("claiming", "standard", "better")
    same = verdicts({"axes": [claiming, row("all", "standard", "better")]})
    assert _rows(same, "depth |") == [
        "| depth | 1 claiming | none: each diverged in a case | - | better | better | 0, 1, 0 |"
    ]
    text = verdicts({"axes": [claiming, row("all", "completep", "worse")]})
    assert len(_rows(text, "depth |")) == 2  # of as many cases, and of other ones
    assert "| depth | 1 in all | CompleteP | +0.020 [+0.010, +0.030] | **worse** |" in text
    assert "It is worse for: none." in text
    assert "the method included, it is worse for: depth." in _flat(text)


def test_the_cases_of_the_claim_are_named_by_what_they_scale() -> None:
    assert "of cases that scale width, depth, width and depth and LoRA rank, on" in claiming_cases(
        transfer()
    )
    choosing = transfer([case("depth", "res_mlp", "Adam")])
    assert claiming_cases(choosing) == "That is one run with one seed."


def test_a_method_that_is_measured_in_some_cases_is_shown_with_what_is_missing(
    tmp_path: Path,
) -> None:
    cases = [case("width"), case("width", "ResMLP"), case("width", "char_gpt_pre", "Muon")]
    cases.append(case("depth"))
    for each, gain in zip(cases[:2], (0.05, 0.03), strict=True):
        recipe = {**each["methods"][1], "method": "depth_mup", "sweep": sweep(-6, 2.0 - gain)}
        each["methods"].append(with_figures(recipe, each["base"], each["methods"][0]))
    text = page(write(tmp_path, transfer=transfer(cases)))
    (width,) = _rows(text, "**width** |")
    assert " (2) |" in width  # of three cases
    (depth,) = _rows(text, "**depth** |")
    assert "| not measured |" in depth
    regrets, _, *_ = _rows(text, "width: char_gpt_pre, Muon")
    assert "| no rule |" in regrets  # depth-muP says nothing of Muon
    assert len(_rows(text, "depth-muP |")) == 1
    assert "- **Not measured with any method** (35 of 35 cases): width: char_gpt_pre Adam, " in text
    assert "The default cannot be chosen yet: none of the 12 choosing cases" in _flat(text)


def test_what_is_not_measured_yet_is_named_by_method() -> None:
    done = [{**identity(each), "method": "standard"} for each in CASES]
    assert list(unmeasured(done)) == [name for name in METHODS if name != "standard"]
    assert "lora_rank lora_gpt AdamW" not in [each.name for each in unmeasured(done)["mup"]]
    every = [
        {**identity(each), "method": name}
        for each in CASES
        for name in METHODS
        if method_of(name, each) is not None
    ]
    assert not_measured(every) == ""
    last = [each for each in every if each["method"] == "hybrid" and each["axis"] == "depth"][-1]
    text = not_measured([each for each in every if each is not last])
    assert text.endswith(
        "- **hybrid (depth-muP)** (1 of 35 cases): depth: char_gpt_post_mod AdamW."
    )


def test_the_page_says_which_default_the_rule_chooses(tmp_path: Path) -> None:
    name = "depth", "res_mlp", "Adam"
    figures = transfer([case(*name)])
    base, (standard, ours) = figures["bases"][0], figures["cases"]
    measured = {**ours, "method": "measured"}
    better = {**ours, "sweep": sweep(-6, 1.9)}
    records = [standard, measured, with_figures(better, base, standard)]
    text = _flat(page(write(tmp_path, transfer=document([base], records, PROVENANCE))))
    assert (
        "chooses **hybrid (depth-standard)** on 1 of 12 choosing cases; the default in use is"
        in text
    )
    assert "| hybrid (depth-standard) | -0.0" in text
    assert "| measured | -0.005 | +0.080 [+0.080, +0.080] | worse |" in text


def test_the_summary_counts_cases_within_an_octave(tmp_path: Path) -> None:
    text = _flat(page(write(tmp_path, transfer=transfer())))
    assert "is within one octave of the base's in **7 of 8** (88%; the aim is 95%)" in text
    assert "and the plain model's in 1 of 8. 0 more cannot tell" in text
    assert "Over all 8 cases, it is within an octave in 7 of 8" in text


def test_cases_that_miss_the_aim_are_listed_with_their_notes(tmp_path: Path) -> None:
    explained = case("sequence_length", "char_gpt_pre", "Adam", plain=1, advised=3)
    missed = case("depth", "ResMLP", "Muon", plain=-1, advised=-2, gain=-0.1)
    text = page(write(tmp_path, transfer=transfer([missed, explained])))
    assert "- **depth: ResMLP, Muon** (-1.99 octaves): Not explained yet." in text
    assert "- **sequence length: char_gpt_pre, Adam** (+3.07 octaves): A step of the scaled" in text


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
    assert list(drawn(tmp_path)) == ["transfer-methods.svg"]


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
    assert left == [
        "transfer-methods.svg",
        "transfer-regret.svg",
        "transfer-shift.svg",
        "transfer-sweeps-width.svg",
    ]
