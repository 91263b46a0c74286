"""The command: runs the phases, judges their histories, says what was found."""

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
# Fewer are a run that tested less than it says: 200 in a full run; a short one begins slowly.
_FAULTS_PER_S, _QUICK_FAULTS_PER_S = 200 / _FULL_S, 0.5
PROJECTS_OF_A_CLUSTER = ("default", "red", "blue")  # each lies on another of three nodes
# How long each takes, relative to the first, how its store is made of a data directory, and where
# clients work.
_PHASES: Mapping[str, tuple[float, Callable[[Path], Store], tuple[str, ...]]] = {
    "standalone": (1.0, Standalone, ("default",)),
    "sentinel": (1 / 3, Sentinels, ("default",)),
    "cluster": (1 / 3, ClusterOfThree, PROJECTS_OF_A_CLUSTER),
}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Short: a standalone Redis.")] = False,
    seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds of faults of a standalone Redis. Default: 180; --quick: 15."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Where choices come from; times still vary.")] = 0,
    out: Annotated[Path, typer.Option(help="Where histories and logs are kept.")] = Path(
        "out/chaos"
    ),
    json_only: Annotated[bool, typer.Option("--json-only", help="Print the JSON alone.")] = False,
    again: Annotated[
        Path | None, typer.Option("--check", help="Judge this history again; nothing is run.")
    ] = None,
    only: Annotated[str, typer.Option(help="Run this phase alone.")] = "",
    without_persistence: Annotated[
        bool,
        typer.Option(help="Let Redis forget all when it dies: what is lost then must be found."),
    ] = False,
) -> None:
    """Inject faults under clients at work, and hold what they were told against a model.

    The last line is JSON; the exit status is 1 if a promise was broken or too few faults came.
    """

    def say(line: str) -> None:
        if not json_only:
            typer.echo(line)

    if again is not None:
        raise typer.Exit(_verdict([_judged(again, [], say)], wanted=0))
    os.environ["ADVISOR_REDIS_TIMEOUT_S"] = "1"  # so that callers wait longer than the service
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
            results.append(_judged(plan.history(project), defects, say))
            defects = []  # told once
    per_s = 0.0 if only else _QUICK_FAULTS_PER_S if quick else _FAULTS_PER_S
    raise typer.Exit(_verdict(results, wanted=round(per_s * seconds)))


def _judged(
    path: Path, defects: list[str], say: Callable[[str], None]
) -> tuple[dict[str, int], bool]:
    """Judge a history, and return its figures and whether anything beside them went wrong."""
    history = read(path)
    violations: list[Violation] = check(history)
    for line in report.lines(history, violations):
        say(line)
    for line in defects:
        say(f"  LOGGED {line}")
    figures = {"operations": len(history.operations), "faults": report.injected(history)}
    return {**figures, **counted(violations)}, bool(defects or history.of("broken"))


def _verdict(results: list[tuple[dict[str, int], bool]], *, wanted: int) -> int:
    """Print the sum of all phases, and return the exit status."""
    total = {
        key: sum(figures[key] for figures, _ in results)
        for key in ("operations", "faults", *COUNTS)
    }
    failed = any(total[key] for key in COUNTS) or any(broken for _, broken in results)
    if total["faults"] < wanted:
        typer.echo(f"only {total['faults']} faults were injected, of {wanted} wanted", err=True)
        failed = True
    sys.stderr.flush()
    typer.echo(json.dumps(total))
    return int(failed)
