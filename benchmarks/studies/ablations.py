"""``python -m benchmarks ablations``: what the settings of a transfer are worth."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.markdown import number
from benchmarks.options import one_of
from benchmarks.provenance import AsJson, Out, emit, measuring_commit
from benchmarks.studies.questions import Question, questions
from benchmarks.studies.reference import Outcome, Reference, gain, references, tried
from benchmarks.transfer.bench import PROCESSES, THREADS, Bench
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
        regret_error: Standard error of that mean from the seeds; None: one seed.
        extra_cost_percent: Mean over cases.
    """

    shift: int | None
    regret: float | None
    regret_error: float | None
    extra_cost_percent: float | None


def summarised(outcomes: Sequence[Outcome]) -> Summary:
    """Return what a choice gave over all cases.

    Args:
        outcomes: One a case.
    """
    shifts = [outcome.shift for outcome in outcomes]
    known = [
        outcome.regret_spread**2 / len(outcome.regrets)
        for outcome in outcomes
        if outcome.regret_spread is not None
    ]
    return Summary(
        shift=None
        if None in shifts
        else max((shift for shift in shifts if shift is not None), key=abs),
        regret=_mean([outcome.regret for outcome in outcomes]),
        regret_error=sum(known) ** 0.5 / len(outcomes) if len(known) == len(outcomes) else None,
        extra_cost_percent=_mean([outcome.extra_cost_percent for outcome in outcomes]),
    )


def conclusion(tried_out: Mapping[str, Sequence[Outcome]], default: str) -> str:
    """Say in a sentence how the default stands among the choices.

    Two choices are told apart where chance alone makes such a difference, taken seed by seed, in
    less than one of twenty (Welch's t-test).

    Args:
        tried_out: Outcomes by choice, one a case.
        default: The choice that is the default.
    """
    gains = {  # of the default over each other choice
        name: gain(tried_out[default], outcomes)
        for name, outcomes in tried_out.items()
        if name != default
    }
    known = {name: found for name, found in gains.items() if found is not None}
    if any(outcome.regret is None for outcome in tried_out[default]):
        return f"{default}, the default, diverged"
    worse = [name for name, found in known.items() if found.is_beyond_noise and found.mean > 0]
    best = min(known, key=lambda name: known[name].mean, default=default)
    if best == default or known[best].mean >= 0:
        if not worse:
            return f"{default}, the default, has the lowest regret; no other is told apart from it"
        return f"{default}, the default, has the lowest regret; clearly worse: {', '.join(worse)}"
    found = known[best]
    amount = f"{-found.mean:.3f}"
    if found.standard_error is not None:
        amount += f" ± {found.standard_error:.3f}"
    if found.is_beyond_noise:
        text = f"{best} is clearly better than {default}, the default, by {amount} nats"
    else:
        text = (
            f"{best} has the lowest regret, {amount} nats below {default}, the default: no "
            "difference beyond the seeds' noise"
        )
    return text + (f"; clearly worse: {', '.join(worse)}" if worse else "")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def ablations(
    *,
    question: Annotated[
        str | None,
        typer.Option(
            help="One question alone, by its name.",
            callback=one_of([each.name for each in questions()]),
        ),
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="One seed, fewer steps (about 4 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Ask what interval, averaging, estimator, depth rule and profile are worth (about 2 h)."""
    asked = [q for q in questions(is_quick=is_quick) if question in {None, q.name}]
    found: list[dict[str, Any]] = []
    merged: tuple[str, ...] = ()
    if question is not None and out is not None and out.exists():  # the other answers stay
        found, merged = json.loads(out.read_text("utf-8"))["ablations"], ("--question",)
    order = [each.name for each in questions()]
    known: dict[_Key, Reference] = {}
    with bench_with_progress("ablations") as bench:
        for each in asked:
            answer = _answered(bench, each, known)
            answers = {old["name"]: old for old in found} | {each.name: answer}
            found = [answers[name] for name in order if name in answers]
            if not as_json:
                _print(answer)
            _emit(found, merged, as_json=False, out=out)  # what is done is kept
    _emit(found, merged, as_json=as_json, out=out)


def _emit(
    found: list[dict[str, Any]], merged: Sequence[str], *, as_json: bool, out: Path | None
) -> None:
    figures = {"ablations": found, "processes": PROCESSES}
    emit(figures, as_json=as_json, out=out, without=merged, threads=THREADS)


def _answered(bench: Bench, question: Question, known: dict[_Key, Reference]) -> dict[str, Any]:
    """Answer a question; searches of base and plain big model are kept in ``known``."""
    missing = [case for case in question.cases if (case, question.base_steps) not in known]
    for reference in references(bench, missing, question.base_steps):
        known[reference.case, question.base_steps] = reference
    tried_out: dict[str, list[Outcome]] = {}
    for choice in question.choices:
        outcomes = tried_out[choice.name] = []
        for case in question.cases:
            reference = known[case, question.base_steps]
            profiles = None if choice.profiles is None else choice.profiles(bench, reference)
            outcomes.append(tried(bench, reference, choice.method, profiles))
    return {
        "name": question.name,
        "question": question.text,
        "rows": [
            {
                "setting": name,
                "role": "default" if name == question.default else "other",
                **asdict(summarised(outcomes)),
                "seeds": min(len(case.seeds) for case in question.cases),
                "cases": {
                    case.name: asdict(outcome)
                    for case, outcome in zip(question.cases, outcomes, strict=True)
                },
            }
            for name, outcomes in tried_out.items()
        ],
        "commit": measuring_commit(),
        "default": question.default,
        "text": conclusion(tried_out, question.default),
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
                    ("regret_error", ".3f"),
                    ("extra_cost_percent", "+.1f"),
                )
            ),
        )
    _console.print(table)
    _console.print(answer["text"] + ".")
