"""``python -m benchmarks ablations``: what the settings of a transfer are worth."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.markdown import number
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.studies.questions import Question, questions
from benchmarks.studies.reference import Outcome, Reference, references, tried
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.progress import bench_with_progress

_console = Console()

_Key = tuple[Case, int | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """A choice over all cases of its question; None: it diverged in one of them.

    Attributes:
        shift: The shift that is largest in absolute value, in octaves.
        regret: Mean over cases, in nats.
        regret_spread: Standard error of that mean from the seeds; None: one seed.
        extra_cost_percent: Mean over cases.
    """

    shift: int | None
    regret: float | None
    regret_spread: float | None
    extra_cost_percent: float | None


def summarised(outcomes: Sequence[Outcome], seeds: int) -> Summary:
    """Return what a choice gave over all cases.

    Args:
        outcomes: One a case.
        seeds: Seeds of each.
    """
    shifts = [outcome.shift for outcome in outcomes]
    spreads = [outcome.regret_spread for outcome in outcomes]
    known = [spread for spread in spreads if spread is not None]
    return Summary(
        shift=None
        if None in shifts
        else max((shift for shift in shifts if shift is not None), key=abs),
        regret=_mean([outcome.regret for outcome in outcomes]),
        regret_spread=sum(spread**2 / seeds for spread in known) ** 0.5 / len(outcomes)
        if known and len(known) == len(spreads)
        else None,
        extra_cost_percent=_mean([outcome.extra_cost_percent for outcome in outcomes]),
    )


def conclusion(rows: Sequence[dict[str, Any]], default: str) -> str:
    """Say in a sentence how the default stands among the choices.

    Two choices are told apart where their regrets differ by more than twice the standard error of
    the difference.

    Args:
        rows: With ``setting``, ``regret`` and ``regret_spread``.
        default: The setting of the default.
    """
    finite = [row for row in rows if row["regret"] is not None]
    own = next((row for row in finite if row["setting"] == default), None)
    if own is None:
        return f"{default}, the default, diverged"
    best = min(finite, key=lambda row: float(row["regret"]))
    if best is own:
        rest = [row for row in finite if row is not own]
        worse = [row["setting"] for row in rest if _are_apart(own, row)]
        if not worse:
            return f"{default}, the default, has the lowest regret; no other is told apart from it"
        return f"{default}, the default, has the lowest regret; clearly worse: {', '.join(worse)}"
    gain = own["regret"] - best["regret"]
    verdict = "clearly better" if _are_apart(own, best) else "better within the seeds' noise"
    return f"{best['setting']} is {verdict} than {default}, the default, by {gain:.3f} nats"


def _are_apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    spreads = [one["regret_spread"], other["regret_spread"]]
    if None in spreads:
        return False
    error = sum(spread**2 for spread in spreads) ** 0.5
    return bool(abs(one["regret"] - other["regret"]) > 2 * error)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _named(name: str | None) -> str | None:
    known = [question.name for question in questions()]
    if name is not None and name not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return name


def ablations(
    *,
    question: Annotated[
        str | None, typer.Option(help="One question alone, by its name.", callback=_named)
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="One seed, fewer steps (about 4 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Ask what interval, probes, estimator, depth rule and profile are worth (about 15 min)."""
    asked = [q for q in questions(is_quick=is_quick) if question in {None, q.name}]
    found: list[dict[str, Any]] = []
    if question is not None and out is not None and out.exists():  # the other answers stay
        found = json.loads(out.read_text("utf-8"))["ablations"]
    known: dict[_Key, Reference] = {}
    with bench_with_progress("ablations") as bench:
        for each in asked:
            answer = _answered(bench, each, known)
            found = [old for old in found if old["name"] != each.name] + [answer]
            if not as_json:
                _print(answer)
            emit({"ablations": found}, as_json=False, out=out)  # what is done is kept
    emit({"ablations": found}, as_json=as_json, out=out)


def _answered(bench: Bench, question: Question, known: dict[_Key, Reference]) -> dict[str, Any]:
    """Answer a question; searches of base and plain big model are kept in ``known``."""
    missing = [case for case in question.cases if (case, question.base_steps) not in known]
    for reference in references(bench, missing, question.base_steps):
        known[reference.case, question.base_steps] = reference
    rows = []
    for choice in question.choices:
        outcomes = []
        for case in question.cases:
            reference = known[case, question.base_steps]
            profiles = None if choice.profiles is None else choice.profiles(bench, reference)
            outcomes.append(tried(bench, reference, choice.method, profiles))
        seeds = len(question.cases[0].seeds)
        rows.append({
            "setting": choice.name,
            **asdict(summarised(outcomes, seeds)),
            "seeds": seeds,
            "cases": {
                case.name: asdict(outcome)
                for case, outcome in zip(question.cases, outcomes, strict=True)
            },
        })
    return {
        "name": question.name,
        "question": question.text,
        "rows": rows,
        "default": question.default,
        "text": conclusion(rows, question.default),
    }


def _print(answer: dict[str, Any]) -> None:
    table = Table(
        *("setting", "shift", "regret, nats", "±", "extra cost, %"),
        title=answer["question"], box=box.SIMPLE,
    )  # fmt: skip
    for row in answer["rows"]:
        default = " (default)" if row["setting"] == answer["default"] else ""
        table.add_row(
            row["setting"] + default,
            *(
                number(row[key], form)
                for key, form in (
                    ("shift", "+d"),
                    ("regret", "+.3f"),
                    ("regret_spread", ".3f"),
                    ("extra_cost_percent", "+.1f"),
                )
            ),
        )
    _console.print(table)
    _console.print(answer["text"] + ".")
