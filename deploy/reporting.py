"""What the checks share: their results and running other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

_MAX_LINES = 15  # last lines of a failed program that are printed


class SkippedError(Exception):
    """A check cannot run; the message says which tool is missing."""


class FailedError(Exception):
    """A check found a problem."""


def run(*command: str, env: Mapping[str, str] | None = None, both: bool = False) -> str:
    """Run a program and return what it printed.

    Args:
        command: The program and its arguments.
        env: Its environment; None for that of this process.
        both: Whether to return its standard error too, before its standard output.

    Raises:
        FailedError: The exit status of the program is not 0.
    """
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if finished.returncode:
        lines = (finished.stdout + finished.stderr).strip().splitlines()
        shown = "\n".join(lines[-_MAX_LINES:])
        raise FailedError(
            f"{' '.join(command[:4])} ended with status {finished.returncode}:\n{shown}"
        )
    return finished.stderr + finished.stdout if both else finished.stdout
