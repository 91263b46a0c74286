"""How a check ends, and how it runs other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

_SHOWN = 15  # last lines of a program that failed


class SkippedError(Exception):
    """A check could not be made; says which tool is missing."""


class FailedError(Exception):
    """A check found something wrong."""


def run(*command: str, env: Mapping[str, str] | None = None, both: bool = False) -> str:
    """Run a program and return what it printed.

    Args:
        command: The program and its arguments.
        env: Its environment; None: ours.
        both: Whether what it said on standard error comes too, first.

    Raises:
        FailedError: Its exit status is not 0.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        shown = "\n".join(lines[-_SHOWN:])
        raise FailedError(f"{' '.join(command[:4])} ended with status {done.returncode}:\n{shown}")
    return done.stderr + done.stdout if both else done.stdout
