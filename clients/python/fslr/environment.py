"""Facts about the current process: its user and its code revision."""

from __future__ import annotations

import getpass
import subprocess


def user_name() -> str:
    """Return the name of the user who runs this process; empty if the user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in containers, a user id without an entry in /etc/passwd
        return ""


def code_revision() -> str:
    """Return the commit of the working directory; empty outside of git.

    Uncommitted changes add ``-dirty``.
    """
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
