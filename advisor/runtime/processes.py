"""Child processes."""

from __future__ import annotations

import subprocess


def terminate(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Ask a process to end, and kill it if it is still running after ``grace_s`` seconds."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
