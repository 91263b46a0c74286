"""``python -m benchmarks alternatives``: other ways to transfer a learning rate to a big model."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.markdown import number
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.studies.reference import Outcome, outcome, references, searched
from benchmarks.transfer.bench import PROCESSES, THREADS
from benchmarks.transfer.cases import Case, chosen_cases
from benchmarks.transfer.methods import published_flerm
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.records import identity
from benchmarks.transfer.shape_rules import ByShape, RuleName
from benchmarks.transfer.sweeps import ADVISED, PLAIN, Method

_console = Console()

_CODE_CHANGES = {
    "standard": "none",
    "muP": "initial value and learning rate of each tensor, by its role; heads of fixed width",
    "depth-muP": "a factor on each branch; learning rates inside blocks",
    "muP and depth-muP": "both",
    "published FLeRM": "none; measurements around the step and a file of the base's rates",
    "advised": "none; three lines outside the loop",
}


def _methods(case: Case) -> list[Method]:
    spoken = {"width": "muP", "depth": "depth-muP", "width_depth": "muP and depth-muP"}
    rule: RuleName = "mup" if case.axis == "width" else "depth_mup"
    return [
        replace(PLAIN, name="standard"),
        Method(spoken[case.axis], parametrisation=ByShape(rule)),
        published_flerm(),
        ADVISED,
    ]


def _cases(*, is_quick: bool) -> list[Case]:
    small = chosen_cases("width", "char_gpt_pre", "Muon")
    wide = [replace(case, optimizer="Adam") for case in small]
    if is_quick:
        return [replace(case, seeds=(0,), steps=100) for case in wide]
    chosen = [("width", "res_mlp"), ("depth", "char_gpt_pre"), ("depth", "res_mlp")]
    chosen += [("width_depth", "char_gpt_pre"), ("width_depth", "res_mlp")]
    return wide + [c for axis, model in chosen for c in chosen_cases(axis, model, "Adam")]


def alternatives(
    *,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Use one case and one seed (about 2 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare ours with standard, muP, depth-muP and the published procedure (about 15 min)."""
    rows: list[dict[str, Any]] = []
    cases = _cases(is_quick=is_quick)
    with bench_with_progress("alternatives") as bench:
        for reference in references(bench, cases):
            for method in _methods(reference.case):
                found = (
                    outcome(reference, reference.plain)
                    if method.name == "standard"
                    else searched(bench, reference, method)
                )
                rows.append(_row(reference.case, method.name, found))
            figures = {"rows": rows, "processes": PROCESSES}
            emit(figures, as_json=False, out=out, threads=THREADS)  # keep each finished case
    emit(figures, as_json=as_json, out=out, threads=THREADS)
    if not as_json:
        _print(rows)


def _row(case: Case, method: str, found: Outcome) -> dict[str, Any]:
    return {
        **identity(case),
        "seeds": len(case.seeds),
        "method": method,
        **asdict(found),
        "code_changes": _CODE_CHANGES[method],
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(
        *("case", "method", "shift", "regret, nats", "±", "added time, %"),
        title="The base's best learning rate on the big model", box=box.SIMPLE,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            f"{row['axis']} {row['model']}",
            row["method"],
            *(number(row[key], form) for key, form in _FORMS.items()),
        )
    _console.print(table)


_FORMS = {
    "shift": "+d",
    "regret": "+.3f",
    "regret_spread": ".3f",
    "extra_cost_percent": "+.1f",
}
