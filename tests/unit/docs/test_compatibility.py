"""The compatibility table: collected from the marks of tests, and up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from docs.generator.compatibility import (
    FORMATS,
    FRAMEWORKS,
    PAGE,
    ROOT,
    Shown,
    rendered,
    shown_by,
    tables,
)

_EVERY_ROW = [
    *(Shown(name, "record", "test_a", "tests/a.py") for name in FRAMEWORKS),
    *(Shown(name, "learning rates", "test_a", "tests/a.py") for name in FORMATS),
]


def collected(folder: Path, *marks: str, on: str = "def test_it() -> None: ...") -> list[Shown]:
    text = "\n".join([*(f"@pytest.mark.compatibility({mark})" for mark in marks), on])
    (folder / "test_new.py").write_text(f"{text}\n", "utf-8")
    return shown_by(folder, folder)


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rendered(page, shown_by(ROOT / "tests")), (
        "run `python -m docs.generator.compatibility`"
    )


def test_a_marked_test_is_a_cell_with_its_name_and_file(tmp_path: Path) -> None:
    found = collected(tmp_path, '"Lightning", "resume"', '"TRL", "advised", refused="it is so"')
    assert found == [
        Shown("Lightning", "resume", "test_it", "test_new.py"),
        Shown("TRL", "advised", "test_it", "test_new.py", "it is so"),
    ]
    text = tables([*_EVERY_ROW, *found])
    assert "| Lightning | yes |  |  | yes |" in text
    assert "| TRL | yes | no |" in text
    assert "| TRL | advised | it is so |" in text
    assert "| Lightning | resume | [`test_it`](../../test_new.py) |" in text


@pytest.mark.parametrize(
    ("mark", "on", "message"),
    [
        (
            '"Torch", "resume"',
            "",
            r"test_new\.py:1: 'Torch' is not a row of the table; use one of PyTorch",
        ),
        ('"TRL", "resuming"', "", r"'resuming' is not a column of the table of TRL; use .* resume"),
        ('"csv", "resume"', "", r"'resume' is not a column of the table of csv; use .* weight"),
        ('"TRL"', "", r"takes a framework, what the test shows, and refused='why'"),
        ('"TRL", "resume", no="x"', "", r"takes a framework, what the test shows, and refused="),
        ('NAME, "resume"', "", r"write the framework and what the test shows as plain strings"),
        ('"TRL", "resume"', "def helper(): ...", r"helper is not a test; mark a test function"),
        ('"TRL", "resume"', "class TestIt: ...", r"TestIt is not a test; mark a test function"),
    ],
)
def test_a_mark_that_is_wrong_is_refused(tmp_path: Path, mark: str, on: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collected(tmp_path, mark, on=on or "def test_it(): ...")


def test_tests_that_disagree_are_refused() -> None:
    other = replace(_EVERY_ROW[0], test="test_b", refused="it fails")
    with pytest.raises(ValueError, match=r"disagree on whether 'record' works .* test_a, test_b"):
        tables([*_EVERY_ROW, other])


def test_a_row_without_a_test_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no test is marked for PyTorch loop; mark one or drop"):
        tables(_EVERY_ROW[1:])


def test_a_page_without_a_place_for_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs the lines <!-- compatibility -->"):
        rendered("# A page\n", _EVERY_ROW)
