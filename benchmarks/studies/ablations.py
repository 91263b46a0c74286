"""``python -m benchmarks ablations``: how each setting of a transfer changes the regret."""

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
from benchmarks.studies.conclusions import Conclusion, conclude
from benchmarks.studies.questions import Question, questions
from benchmarks.studies.reference import Outcome, Reference, references, tried
from benchmarks.transfer.bench import PROCESSES, THREADS, Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.progress import bench_with_progress

_console = Console()

_Key = tuple[Case, int | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a choice over all cases of its question; None where it diverged in one.

    Attributes:
        shift: The shift with the largest absolute value, in octaves.
        regret: Mean over cases, in nats.
        regret_error: Standard error of that mean over seeds; None with a single seed.
        extra_cost_percent: Mean added time over cases.
    """

    shift: int | None
    regret: float | None
    regret_error: float | None
    extra_cost_percent: float | None


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Return the results of a choice over all cases.

    Args:
        outcomes: The results in each case.
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


def conclusion_of(answer: Mapping[str, Any]) -> Conclusion:
    """Return what the regrets of a stored answer say about its default.

    Args:
        answer: An entry of ``ablations.json``.
    """
    regrets = {
        row["setting"]: [case["regrets"] for case in row["cases"].values()]
        for row in answer["rows"]
    }
    return conclude(regrets, answer["default"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def ablations(
    *,
    question: Annotated[
        str | None,
        typer.Option(
            help="Ask only the question with this name.",
            callback=one_of([each.name for each in questions()]),
        ),
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Use one seed and fewer steps (about 4 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare intervals, averaging, probes, estimators, depth rules and profiles (about 2 h)."""
    asked = [q for q in questions(is_quick=is_quick) if question in {None, q.name}]
    found: list[dict[str, Any]] = []
    merged: tuple[str, ...] = ()
    if question is not None and out is not None and out.exists():  # keep the other answers
        found, merged = json.loads(out.read_text("utf-8"))["ablations"], ("--question",)
    order = [each.name for each in questions()]
    known: dict[_Key, Reference] = {}
    with bench_with_progress("ablations") as bench:
        for each in asked:
            answer = _answer(bench, each, known)
            answers = {old["name"]: old for old in found} | {each.name: answer}
            found = [answers[name] for name in order if name in answers]
            if not as_json:
                _print(answer)
            _emit(found, merged, as_json=False, out=out)  # keep each finished answer
    _emit(found, merged, as_json=as_json, out=out)


def _emit(
    found: list[dict[str, Any]], merged: Sequence[str], *, as_json: bool, out: Path | None
) -> None:
    figures = {"ablations": found, "processes": PROCESSES}
    emit(figures, as_json=as_json, out=out, without=merged, threads=THREADS)


def _answer(bench: Bench, question: Question, known: dict[_Key, Reference]) -> dict[str, Any]:
    """Answer a question; ``known`` collects the references of its cases."""
    missing = [case for case in question.cases if (case, question.base_steps) not in known]
    for reference in references(bench, missing, question.base_steps):
        known[reference.case, question.base_steps] = reference
    by_choice: dict[str, list[Outcome]] = {}
    for choice in question.choices:
        outcomes = by_choice[choice.name] = []
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
                **asdict(summarize(outcomes)),
                "seeds": min(len(case.seeds) for case in question.cases),
                "cases": {
                    case.name: asdict(outcome)
                    for case, outcome in zip(question.cases, outcomes, strict=True)
                },
            }
            for name, outcomes in by_choice.items()
        ],
        "commit": measuring_commit(),
        "default": question.default,
    }


def _print(answer: dict[str, Any]) -> None:
    table = Table(
        *("setting", "shift", "regret, nats", "±", "added time, %"),
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
    _console.print(f"Conclusion: {conclusion_of(answer)}.")
