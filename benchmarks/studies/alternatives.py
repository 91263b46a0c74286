"""``python -m benchmarks alternatives``: other ways to transfer a learning rate to a big model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from advisor.policy import Policy
from advisor.wire import policy_to_proto
from benchmarks.markdown import number
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.studies.parametrisations import Rule, depth_mup, initialise, mup, width_and_depth
from benchmarks.studies.reference import Outcome, outcome, references, searched
from benchmarks.transfer.bench import PROCESSES, THREADS
from benchmarks.transfer.cases import Case, chosen_cases
from benchmarks.transfer.models import build_task
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.results import identity
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.sweeps import ADVISED, PLAIN, Method
from benchmarks.transfer.training import Advice, Recording
from fslr.torch import MeasuringOptions

_console = Console()

RuleName = Literal["muP", "depth-muP", "muP and depth-muP"]
_RULES: dict[RuleName, Rule] = {
    "muP": mup,
    "depth-muP": depth_mup,
    "muP and depth-muP": width_and_depth,
}
_CODE_CHANGES = {
    "standard": "none",
    "muP": "initial value and learning rate of each tensor, by its role; heads of fixed width",
    "depth-muP": "a factor on each branch; learning rates inside blocks",
    "muP and depth-muP": "both",
    "published FLeRM": "none; measurements around the step and a file of the base's rates",
    "advised": "none; three lines outside the loop",
}


@dataclass(frozen=True, slots=True)
class ByShape:
    """A parametrisation that follows from the shapes of base and big model.

    Attributes:
        rule: Its name.
    """

    rule: RuleName

    @property
    def name(self) -> str:
        """Name in tables and JSON."""
        return self.rule

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, float]:  # noqa: ARG002
        """Scale the initial weights in place and return factors on the learning rate.

        Args:
            model: The model.
            setting: Its setting; not used.
            base: The setting where the learning rate was tuned.
        """
        factors = _RULES[self.rule](model, build_task(base).model, "adam")
        initialise(model, factors)
        return {name: factor.learning_rate for name, factor in factors.items()}


def published_flerm() -> Method:
    """Return the paper's own procedure (Milsom et al., section 4, appendix).

    It uses the estimator ``kronecker`` with 40 probes at the first step and one every 100 steps
    after it, a running average over probes, and no rule but the ratio of rates. The authors draw
    a new batch for each of the 40 probes; here all probes use the first step's batch.
    """
    options = MeasuringOptions(estimator="kronecker", probes=40, averaging=0.9, linearity=False)
    policy = Policy(
        min_interval_steps=100,
        max_interval_steps=100,
        weigh_by_confidence=False,
        averaging_window=0.0,
        max_relative_error=1e6,
        target_relative_error=1e6,  # after the first measurement one probe is enough
    )
    return Method(
        "published FLeRM",
        recording=Recording(every=100, options=options),
        advice=Advice(policy_to_proto(policy), options),
    )


def _methods(case: Case) -> list[Method]:
    rules: dict[str, RuleName] = {
        "width": "muP",
        "depth": "depth-muP",
        "width_depth": "muP and depth-muP",
    }
    by_shape = ByShape(rules[case.axis])
    return [
        replace(PLAIN, name="standard"),
        Method(by_shape.name, parametrisation=by_shape),
        published_flerm(),
        ADVISED,
    ]


def _cases(*, is_quick: bool) -> list[Case]:
    small = chosen_cases("width", "char_gpt_pre", "AdamW")
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
