"""Child processes: how they are ended."""

from __future__ import annotations

import subprocess


def end(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Ask a process to end, and kill it if it does not within ``grace_s`` seconds."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
