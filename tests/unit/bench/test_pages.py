"""Pages show the stored figures: blocks are up to date, and the README has no other figures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmarks.report.blocks import block_names, with_blocks, without_blocks
from benchmarks.report.command import results
from benchmarks.report.pages import BLOCKS, render_block, render_page
from benchmarks.report.paths import FIGURES, PAGES_WITH_BLOCKS, PICTURES, README, RESULTS
from benchmarks.report.stored import load_figures

_ROOT = Path(__file__).parents[3]
_NAMES_WITH_DIGITS = {"FSDP2", "GPT-2", "Apache-2.0"}


def copy_of_pages(folder: Path) -> Path:
    """Return a copy of the stored figures, the pages and their pictures."""
    for path in (*PAGES_WITH_BLOCKS, RESULTS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / path, folder / path)
    for path in (FIGURES, PICTURES):
        shutil.copytree(_ROOT / path, folder / path)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_rendering_again_changes_no_page_and_no_picture(tmp_path: Path) -> None:
    committed = contents(copy_of_pages(tmp_path))
    results(tmp_path)
    rendered = contents(tmp_path)
    assert [path for path in committed if rendered.get(path) != committed[path]] == []
    assert sorted(rendered) == sorted(committed)


def test_a_changed_figure_changes_the_pages_that_show_it(tmp_path: Path) -> None:
    figures = load_figures(copy_of_pages(tmp_path) / FIGURES)
    readme = (tmp_path / README).read_text("utf-8")
    assert render_page(readme, figures) == readme
    figures["demo"]["plain_loss"] = figures["demo"]["advised_loss"] + 0.125
    assert "0.12 nats below" in render_page(readme, figures)


def test_pages_use_every_block_and_have_no_unknown_block() -> None:
    used = {
        name
        for page in PAGES_WITH_BLOCKS
        for name in block_names((_ROOT / page).read_text("utf-8"))
    }
    assert used == set(BLOCKS)


def words_with_digits(page: str) -> list[str]:
    """Return the words with digits outside blocks, code, links' addresses and known names."""
    texts = [
        child.content
        for token in MarkdownIt("commonmark").enable("table").parse(without_blocks(page))
        for child in token.children or ()
        if child.type == "text"
    ]
    words = (word.strip(".,;:()") for text in texts for word in text.split())
    return [
        word
        for word in words
        if any(character.isdigit() for character in word)
        and word not in _NAMES_WITH_DIGITS
        and not (_ROOT / word).exists()
    ]


def test_readme_has_figures_only_in_blocks() -> None:
    assert words_with_digits((_ROOT / README).read_text("utf-8")) == []


def test_a_figure_outside_blocks_is_found() -> None:
    page = "Text\n<!-- figures: demo -->\n0.67 nats\n<!-- /figures -->\nSaves 37% of `16` steps."
    assert words_with_digits(page) == ["37%"]


def test_only_blocks_are_rendered() -> None:
    page = "a\n<!-- figures: one -->\nold\nold\n<!-- /figures -->\n\n<!-- other -->\nb\n"
    rendered = with_blocks(page, "new {}".format)
    assert rendered == page.replace("old\nold", "new one")
    assert block_names(page) == ["one"]
    assert without_blocks(page) == "a\n\n<!-- other -->\nb\n"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- figures: a -->\ntext\n", "the block 'a' is not closed"),
        ("text\n<!-- /figures -->\n", "'<!-- /figures -->' follows no block"),
        ("<!-- figures: a -->\n<!-- figures: b -->\n<!-- /figures -->\n", "follows an open block"),
    ],
)
def test_a_malformed_block_is_refused(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_blocks(page, str.upper)


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block is named 'typo'; use one of demo-setup, demo,"):
        render_block("typo", {})


def test_a_block_without_stored_figures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'summary' needs the figures of overhead$"):
        render_block("summary", {"estimator": {}})


def test_sentences_show_the_figures_of_their_files() -> None:
    demo = {
        "base_width": 8,
        "width": 32,
        "steps": 50,
        "seconds": 12.4,
        "plain_loss": 2.306,
        "best_plain_loss": 1.95,
        "advised_loss": 2.0,
        "gpt2": {
            "base_width": 4,
            "width": 8,
            "steps": 60,
            "plain_loss": 2.5,
            "best_plain_loss": 2.41,
            "advised_loss": 2.4,
        },
        "multiplier_min": 0.0512,
        "multiplier_max": 2.06,
        "machine": {"cores": 4},
    }
    setup = " ".join(render_block("demo-setup", {"demo": demo}).split())
    assert "of width 8 and uses it unchanged at width 32 (4 times wider, 50 steps" in setup
    outcome = " ".join(render_block("demo-outcome", {"demo": demo}).split())
    assert "and 2 times wider, 60 steps" in setup
    assert (
        "With Adam, the advised run ends 0.31 nats below the plain one at the same learning rate, "
        "and 0.05 nats above the plain one at its own best learning rate."
    ) in outcome
    assert "With GPT-2's setup, it ends 0.10 nats below the plain one" in outcome
    assert "and 0.01 nats below the plain one at its own" in outcome
    assert "between 0.051 and 2.1" in outcome
    figures = {"rows": [{}] * 4, "median_regret": 0.0123, "worst_regret": 0.05, "harmed": 0}
    practice = " ".join(render_block("practice", {"practice": figures}).split())
    assert "On 4 common training setups of small GPTs" in practice
    assert "a median of 0.012 nats above the plain model" in practice
    assert "and 0.050 nats above it in the worst setup. None of them ends above" in practice
    figures |= {"median_regret": -0.0123, "worst_regret": None, "harmed": 2}
    practice = " ".join(render_block("practice", {"practice": figures}).split())
    assert "a median of 0.012 nats below the plain model" in practice
    assert "and infinitely far above it in the worst setup. 2 of them end above" in practice
    larger = {
        "cases": [
            {"method": "standard", "steps": 300, "octaves": {"regret": 1.4247}},
            {"method": "depth_mup", "octaves": {"regret": None}},
            {"method": "hybrid_standard", "octaves": {"regret": -0.0924}},
        ]
    }
    words = " ".join(render_block("larger-case", {"transfer-larger": larger}).split())
    assert "300 steps of AdamW with weight decay" in words
    assert words.endswith(
        "the plain model ends 1.42 nats above the best of its full search; with depth-muP, it ends "
        "infinitely far above that; with hybrid (depth-standard), it ends 0.09 nats below that."
    )
    scaling = {
        "stepping": [
            {
                "split_ms": 2.9,
                "plain_ms": 1.0,
                "rounded_ratio": 1.23,
                "regrouped_ratio": 1.12,
                "groups": 200,
            },
            {
                "split_ms": 8.4,
                "plain_ms": 2.0,
                "rounded_ratio": 1.48,
                "regrouped_ratio": 1.35,
                "groups": 200,
            },
            {
                "split_ms": 90.0,
                "plain_ms": 2.0,
                "rounded_ratio": 9.0,
                "regrouped_ratio": 8.0,
                "groups": 800,
            },
        ]
    }
    cost = " ".join(render_block("stepping-cost", {"scaling": scaling}).split())
    assert "takes 1.2 to 1.5 times as long with the rounded multipliers" in cost
    assert "1.1 to 1.4 times as long if the same groups are made by hand" in cost
    assert "If all multipliers differ, a step takes 2.9 to 4.2 times as long" in cost


def test_the_stored_demo_keeps_its_promise() -> None:
    assert load_figures(_ROOT / FIGURES)["demo"]["gain"] >= 0.25


def test_every_link_of_the_results_page_leads_to_a_file() -> None:
    text = (_ROOT / RESULTS).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert len(links) > 5
    assert [link for link in links if not (_ROOT / RESULTS.parent / link).exists()] == []
