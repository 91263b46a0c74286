"""Commands say what they wait for, and what to do about a service that is too old."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from advisor.cli import progress as shown
from advisor.cli.app import app
from advisor.cli.common import console as results_console
from advisor.cli.progress import counted, progress, whole_command
from tests.waiting import eventually

_WAIT_S = 0.2


class OldService(grpc.GenericRpcHandler):
    """A service that takes a while to say that it has no method."""

    def service(self, _details: Any) -> Any:
        def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
            time.sleep(_WAIT_S)
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture(scope="module")
def old_service() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[OldService()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what a terminal receives; progress is shown at once."""
    written = io.StringIO()
    monkeypatch.setattr(
        shown, "_terminal", lambda: Console(file=written, force_terminal=True, width=80)
    )
    monkeypatch.setattr(shown, "DELAY_S", 0.02)
    return written


def test_what_takes_long_is_shown_and_of_nested_work_the_whole(terminal: io.StringIO) -> None:
    def items() -> Iterator[int]:
        for i in range(3):
            with progress("a part"):
                time.sleep(0.05)
                yield i

    assert list(counted(items(), "the whole", 3)) == [0, 1, 2]
    assert "the whole" in terminal.getvalue()
    assert "a part" not in terminal.getvalue()
    with progress("afterwards"):
        time.sleep(0.1)
    assert "afterwards" in terminal.getvalue()


def test_what_is_quick_and_what_no_terminal_sees_is_not_shown(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "DELAY_S", 5.0)
    with progress("quick"):
        pass
    assert terminal.getvalue() == ""
    file = io.StringIO()
    monkeypatch.setattr(shown, "_terminal", lambda: Console(file=file))
    monkeypatch.setattr(shown, "DELAY_S", 0.0)
    with progress("slow"):
        time.sleep(0.05)
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    "command", ["run list", "run show night", "report night", "check night", "policy list"]
)
def test_an_old_service_is_named_with_a_remedy(
    old_service: str, terminal: io.StringIO, command: str
) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--address", old_service])
    assert result.exit_code in {1, 2}
    words = f"the service at {old_service} does not have this method (Method not found!)"
    assert words in result.output
    assert "update the service, or check the address" in result.output
    assert "Traceback" not in result.output
    assert "waiting for" in terminal.getvalue() or "reading" in terminal.getvalue()


ROOT: Any = typer.main.get_command(app)


def paths(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the names of each command, such as ``("run", "show")``."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path
        return
    for name, child in inner.items():
        yield from paths(child, (*path, name))


def needed(command: Any) -> list[str]:
    """Return arguments and options without which a command is not run."""
    found: list[str] = []
    for parameter in command.params:
        if parameter.required:
            is_option = parameter.param_type_name == "option"
            found += parameter.opts[:1] if is_option else []
            found.append({"--to": "csv", "--role": "viewer"}.get(parameter.opts[0], "1"))
    return found


@pytest.mark.parametrize("path", [*paths()], ids=" ".join)
def test_every_command_that_takes_long_is_shown(
    path: tuple[str, ...], terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "DELAY_S", 0.0)
    command = ROOT
    for name in path:
        command = command.commands[name]
    name = f"advisor {' '.join(path)}"

    def work(**_: Any) -> None:
        eventually(lambda: name in terminal.getvalue())

    monkeypatch.setattr(command, "callback", work)
    ROOT.main([*path, *needed(command)], standalone_mode=False)


def test_a_command_is_shown_after_two_seconds_at_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        shown, "_terminal", lambda: Console(file=io.StringIO(), force_terminal=True)
    )
    waits: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, seconds: float, function: Any) -> None:
            super().__init__(seconds, function)
            waits.append(seconds)

    monkeypatch.setattr(threading, "Timer", Timer)
    with whole_command("advisor x"), progress("a part"):
        pass
    assert len(waits) == 1
    assert 0 < waits[0] <= 2


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_nothing_is_shown_among_results(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(
        shown, "_terminal", lambda: Console(file=screen, force_terminal=True, width=80)
    )
    with whole_command("advisor x"):
        eventually(lambda: "advisor x" in screen.getvalue())
        with progress("a part"):
            eventually(lambda: "a part" in screen.getvalue())
        typer.echo("a result")
        results_console.print("another one")
        time.sleep(0.05)
        results = screen.getvalue().rpartition("\x1b[2K")[2]
        assert results == "a result\nanother one\n"
        with progress("the end"):
            eventually(lambda: "the end" in screen.getvalue())
    assert sys.stdout is sys.stderr is screen
    assert terminal.getvalue() == ""


def test_a_log_with_forced_colors_is_not_followed_by_what_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(shown, "DELAY_S", 0.02)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with whole_command("advisor serve"):
        typer.echo("serving", err=True)
        time.sleep(0.06)
    assert log.getvalue() == "serving\n"
