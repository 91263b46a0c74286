"""The lines that the progress bar draws."""

from __future__ import annotations

import io

import pytest

from fslr.integrations.progress import ProgressListener
from tests.unit.integrations.listened_training import STEPS, train

pytest.importorskip("rich", reason="the bar is drawn by rich")

from rich.console import Console


def drawn(*, track: bool) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    with ProgressListener(STEPS, console=console) as progress:
        train(progress)
        if track:
            assert list(progress.track(range(1))) == [0]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_bar_shows_what_measuring_finds() -> None:
    last = drawn(track=False).strip().splitlines()[-1]
    assert last.startswith("training ")
    assert "6/7" in last  # the step of the last event
    for expected in ("total rate ", "multipliers 0.5 to 4, none held", "1 warning", "1 failure"):
        assert expected in last


def test_a_loop_that_is_tracked_advances_the_bar() -> None:
    assert "7/7" in drawn(track=True)


def test_the_number_of_steps_may_be_unknown() -> None:
    console = Console(file=io.StringIO(), width=160)
    with ProgressListener(description="fine-tuning", console=console) as progress:
        assert list(progress.track("abc")) == ["a", "b", "c"]
    assert isinstance(console.file, io.StringIO)
    assert "fine-tuning" in console.file.getvalue()
    assert "3/?" in console.file.getvalue()
