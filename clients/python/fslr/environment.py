"""What a process can tell of itself: whose it is, and from which code it runs."""

from __future__ import annotations

import getpass
import subprocess


def user_name() -> str:
    """Return the name of this process's user; empty where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's bare user number
        return ""


def code_revision() -> str:
    """Return the commit of the working directory, ``-dirty`` with changes; empty outside of git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],  # noqa: S607
            capture_output=True,
            check=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
