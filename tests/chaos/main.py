"""The command: runs the phases, checks their histories and prints the findings."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from tests.chaos import phase, report
from tests.chaos.deployment import ClusterOfThree, Sentinels, Standalone, Store
from tests.chaos.history import read
from tests.chaos.model import check
from tests.chaos.violations import COUNTS, Violation, counted

_QUICK_S, _FULL_S = 15.0, 180.0
# Minimum rates of faults: 200 in a full run; a short run starts slowly.
_FAULTS_PER_S, _QUICK_FAULTS_PER_S = 200 / _FULL_S, 0.5
PROJECTS_OF_A_CLUSTER = ("default", "red", "blue")  # each is on a different one of three nodes
# The duration relative to the first phase, the store for a data directory, and the projects in
# which clients work.
_PHASES: Mapping[str, tuple[float, Callable[[Path], Store], tuple[str, ...]]] = {
    "standalone": (1.0, Standalone, ("default",)),
    "sentinel": (1 / 3, Sentinels, ("default",)),
    "cluster": (1 / 3, ClusterOfThree, PROJECTS_OF_A_CLUSTER),
}


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Short run with only a standalone Redis.")
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds of faults with a standalone Redis. Default: 180; --quick: 15."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the random choices; times still vary.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for histories and logs.")] = Path("out/chaos"),
    json_only: Annotated[bool, typer.Option("--json-only", help="Print only the JSON.")] = False,
    again: Annotated[
        Path | None, typer.Option("--check", help="Only check this history again.")
    ] = None,
    only: Annotated[str, typer.Option(help="Run only this phase.")] = "",
    without_persistence: Annotated[
        bool,
        typer.Option(help="Disable persistence in Redis; the lost writes must be found."),
    ] = False,
) -> None:
    """Inject faults while clients work, and check their answers against a model.

    The last line is JSON. The exit status is 1 if a promise was broken or too few faults occurred.
    """

    def say(line: str) -> None:
        if not json_only:
            typer.echo(line)

    if again is not None:
        raise typer.Exit(_verdict([_checked(again, [], say)], required=0))
    os.environ["ADVISOR_REDIS_TIMEOUT_S"] = "1"  # below the deadline of callers
    seconds = seconds or (_QUICK_S if quick else _FULL_S)
    results = []
    for name, (share, make, projects) in _PHASES.items():
        if name != (only or ("standalone" if quick else name)):
            continue
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        plan = phase.Plan(name, share * seconds, seed, folder.resolve(), projects)
        say(
            f"{name}: faults for {plan.seconds:.0f} s, seed {seed}; histories of "
            f"{', '.join(projects)} in {folder}"
        )
        store = make(plan.folder / "redis")
        if without_persistence:
            store = Standalone(plan.folder / "redis", "--appendonly", "no")
        defects = phase.run(plan, store)
        for project in projects:
            if len(projects) > 1:
                say(f"  in {project}")
            results.append(_checked(plan.history(project), defects, say))
            defects = []  # reported once
    per_s = 0.0 if only else _QUICK_FAULTS_PER_S if quick else _FAULTS_PER_S
    raise typer.Exit(_verdict(results, required=round(per_s * seconds)))


def _checked(
    path: Path, defects: list[str], say: Callable[[str], None]
) -> tuple[dict[str, int], bool]:
    """Check a history; return its figures, and whether anything else failed."""
    history = read(path)
    violations: list[Violation] = check(history)
    for line in report.lines(history, violations):
        say(line)
    for line in defects:
        say(f"  LOGGED {line}")
    figures = {
        "operations": len(history.operations),
        "faults": report.injected(history),
        "logged_defects": len(defects),
    }
    return {**figures, **counted(violations)}, bool(defects or history.of("broken"))


def _verdict(results: list[tuple[dict[str, int], bool]], *, required: int) -> int:
    """Print the sum over all phases and return the exit status."""
    total = {
        key: sum(figures[key] for figures, _ in results)
        for key in ("operations", "faults", "logged_defects", *COUNTS)
    }
    failed = any(total[key] for key in COUNTS) or any(broken for _, broken in results)
    if total["faults"] < required:
        typer.echo(
            f"only {total['faults']} faults were injected; at least {required} are required",
            err=True,
        )
        failed = True
    sys.stderr.flush()
    typer.echo(json.dumps(total))
    return int(failed)
