"""``python -m benchmarks ideas``: what might do better than the policy as it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from advisor.policy import DepthRule, Policy
from advisor.rpc.convert import policy_to
from benchmarks.markdown import number
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.studies.matching import extrapolated, match_total
from benchmarks.studies.reference import (
    Outcome,
    Reference,
    octaves_around,
    recorded,
    references,
    tried,
)
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case, chosen_cases
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.sweeps import ADVISED, Method, Profiles
from benchmarks.transfer.training import Advice, Recording

_console = Console()


@dataclass(frozen=True, slots=True)
class Idea:
    """Something that might do better.

    Attributes:
        name: In words.
        method: How to be advised with it.
        without: The same without it.
        status: ``default`` or ``option`` where the policy has it already; empty: it has not.
        applies: Whether it changes anything on a case.
        profiles: Other profiles than the base's; None: those.
    """

    name: str
    method: Method = ADVISED
    without: Method = ADVISED
    status: Literal["default", "option", ""] = ""
    applies: Callable[[Case], bool] = lambda _case: True
    profiles: Callable[[Bench, Reference], Profiles] | None = None


def _with_rules(**rules: object) -> Method:
    policy = replace(Policy(), **rules)  # type: ignore[arg-type]
    return replace(ADVISED, advice=Advice(policy_to(policy)))


def _grows_deeper(case: Case) -> bool:
    return case.big.depth != case.base.depth


def _grows_wider_alone(case: Case) -> bool:
    return case.big.width != case.base.width and not _grows_deeper(case)


def _from_two_sizes(bench: Bench, reference: Reference) -> Profiles:
    """Extrapolate from half the base's width and the base to the big model's width."""
    case = reference.case
    half = replace(case.base, width=case.base.width // 2)
    octaves = octaves_around(reference)
    smaller = recorded(bench, reference, Recording(), octaves, half)
    exponent = math.log(case.big.width / case.base.width) / math.log(2)
    found = {}
    for key, name in smaller.items():
        if key in reference.base.profiles:
            contents = bench.content(name), bench.content(reference.base.profiles[key])
            content = extrapolated(*contents, exponent).SerializeToString()
            found[key] = bench.register(f"extrapolated-{key[0] + 100}-{key[1]}", content)
    return found


IDEAS = (
    Idea(
        "the whole step's rate matched too, by the Gram matrix",
        replace(ADVISED, advice=Advice(adjust=match_total)),
    ),
    Idea(
        "depth rule `measured`",
        _with_rules(depth_rule=DepthRule.MEASURED),
        status="option",
        applies=_grows_deeper,
    ),
    Idea(
        "a profile extrapolated from two sizes",
        applies=_grows_wider_alone,
        profiles=_from_two_sizes,
    ),
    Idea(
        "moves weighed by confidence",
        without=_with_rules(weigh_by_confidence=False),
        status="default",
    ),
)


def _cases(*, is_quick: bool) -> list[Case]:
    """Return cases on which no default was chosen: other models, or other axes."""
    chosen = [
        ("width", "char_gpt_post"),
        ("width", "char_gpt_post_mod"),
        ("width", "res_mlp"),
        ("depth", "char_gpt_post_mod"),
        ("width_depth", "char_gpt_pre"),
        ("width_depth", "res_mlp"),
    ]
    if is_quick:
        chosen = [("width", "res_mlp"), ("width_depth", "res_mlp")]
    found = [case for axis, model in chosen for case in chosen_cases(axis, model, "Adam")]
    return [replace(case, seeds=(0,), steps=100) for case in found] if is_quick else found


def judged(pairs: Sequence[tuple[Outcome, Outcome]], seeds: int) -> dict[str, Any]:
    """Say whether an idea wins: its regret is lower by more than twice the standard error.

    Args:
        pairs: Outcomes with and without it, one pair a case.
        seeds: Seeds of each.
    """
    known = [
        (one.regret, other.regret, one.regret_spread, other.regret_spread)
        for one, other in pairs
        if one.regret is not None and other.regret is not None
    ]
    lost = len(pairs) - len(known)
    regret_with = statistics.fmean(row[0] for row in known) if known else None
    regret_without = statistics.fmean(row[1] for row in known) if known else None
    error = None
    if known and all(row[2] is not None and row[3] is not None for row in known):
        squares = sum(((row[2] or 0) ** 2 + (row[3] or 0) ** 2) / seeds for row in known)
        error = squares**0.5 / len(known)
    wins = (
        regret_with is not None
        and regret_without is not None
        and error is not None
        and lost == 0
        and regret_without - regret_with > 2 * error
    )
    return {
        "regret_with": regret_with,
        "regret_without": regret_without,
        "standard_error": error,
        "diverged": lost,
        "wins": wins,
    }


def in_words(found: Mapping[str, Any], status: str) -> str:
    """Say what an idea gave, and what became of it.

    Args:
        found: What :func:`judged` returned.
        status: As of :class:`Idea`.
    """
    became = {"default": "it is the default", "option": "it stays an option"}.get(
        status, "it is not in the policy"
    )
    if found["diverged"]:
        return f"diverged in {found['diverged']} cases; {became}"
    gain, error = found["regret_without"] - found["regret_with"], found["standard_error"]
    if error is None:
        return f"{gain:+.4f} nats, of one seed, which tells no noise; {became}"
    if abs(gain) <= 2 * error:
        verdict = "no difference beyond the seeds' noise"
    else:
        verdict = "wins" if gain > 0 else "loses"
    return f"{verdict}: {gain:+.4f} ± {error:.4f} nats; {became}"


def ideas(
    *,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Two cases, one seed (about 2 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Try what might beat the policy, on cases that no default was chosen by (about 15 min)."""
    rows = []
    with bench_with_progress("ideas") as bench:
        found = references(bench, _cases(is_quick=is_quick))
        for idea in IDEAS:
            rows.append(_tried(bench, idea, found))
            emit({"ideas": rows}, as_json=False, out=out)  # what is done is kept
    emit({"ideas": rows}, as_json=as_json, out=out)
    if not as_json:
        _print(rows)


def _tried(bench: Bench, idea: Idea, found: Sequence[Reference]) -> dict[str, Any]:
    chosen = [reference for reference in found if idea.applies(reference.case)]
    pairs = []
    for reference in chosen:
        profiles = None if idea.profiles is None else idea.profiles(bench, reference)
        pairs.append((
            tried(bench, reference, idea.method, profiles),
            tried(bench, reference, idea.without),
        ))
    found_out = judged(pairs, len(chosen[0].case.seeds))
    return {
        "name": idea.name,
        **found_out,
        "kept": idea.status != "",
        "text": in_words(found_out, idea.status),
        "cases": {
            reference.case.name: {"with": one.regret, "without": other.regret}
            for reference, (one, other) in zip(chosen, pairs, strict=True)
        },
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(
        *("idea", "cases", "regret with", "without", "± of the difference", "wins"),
        title="Means over held-out cases, nats", box=box.SIMPLE,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["name"],
            str(len(row["cases"])),
            *(
                number(row[key], form)
                for key, form in (
                    ("regret_with", "+.4f"),
                    ("regret_without", "+.4f"),
                    ("standard_error", ".4f"),
                )
            ),
            "yes" if row["wins"] else "no",
        )
    _console.print(table)
