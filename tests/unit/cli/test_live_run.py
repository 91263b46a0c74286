from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from advisor.cli import progress, run_watch
from advisor.cli.run_watch import LiveRun
from fslr.advisor.v1 import run_service_pb2
from tests.stored_runs import block_names, stored_run
from tests.waiting import eventually


class StoredRun:
    """A client that knows one run."""

    def __init__(self, run: run_service_pb2.Run) -> None:
        self.run = run

    def get_run(self, _name: str, *, project: str) -> run_service_pb2.Run:  # noqa: ARG002
        return self.run


def shown(live: LiveRun) -> str:
    console = Console(file=io.StringIO(), width=80, height=40)
    console.print(live.view())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_live_view_follows_the_events_and_starts_anew_with_another_layout() -> None:
    run, events = stored_run(observe_only=True)
    advisor: Any = StoredRun(run)
    live = LiveRun(advisor, "night", "default")
    assert "waiting for the first measurement" in shown(live)
    for event in events[:3]:
        live.add(event)
    assert "step 50" in shown(live)
    assert "would have been recommended" in shown(live)
    advisor.run, later = stored_run(block_names(2), measurements=1)
    live.add(later[0])
    text = shown(live)
    assert "step 0" in text
    assert "0 of 6 groups are held" in text


@pytest.mark.parametrize(("is_terminal", "delay_s", "shows"), [
    (True, 0.0, True),
    (True, 60.0, False),
    (False, 0.0, False),
])  # fmt: skip
def test_progress_is_shown_only_after_a_while_and_in_a_terminal(
    is_terminal: bool, delay_s: float, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=80)
    monkeypatch.setattr(progress, "_terminal", lambda: console)
    monkeypatch.setattr(progress, "DELAY_S", delay_s)
    items = []
    for item in progress.counted(range(3), "reading the history of [b]night", 3):
        time.sleep(0.05)
        items.append(item)
    assert items == [0, 1, 2]
    assert ("reading the history of [b]night" in file.getvalue()) == shows


def test_a_live_view_changes_in_a_terminal_and_its_last_state_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    terminal = Console(
        file=file, force_terminal=True, color_system=None, width=80, height=24, _environ={}
    )
    monkeypatch.setattr(run_watch, "console", terminal)
    monkeypatch.setattr(run_watch, "_REFRESHES_PER_SECOND", 100)
    run, events = stored_run(measurements=2)
    advisor: Any = StoredRun(run)

    def arriving() -> Iterator[run_service_pb2.RunEvent]:
        eventually(lambda: "waiting for the first measurement" in file.getvalue())
        for event in events:
            yield event
            eventually(lambda: f"step {event.measurement.step}\n" in file.getvalue())  # noqa: B023

    LiveRun(advisor, "night", "default").show(arriving())
    last = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", file.getvalue().rpartition("\x1b[2K")[2])
    assert "silent, step 25\n" in last
    assert "waiting" not in last
    lines = last.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
