"""``python -m benchmarks ideas``: what might do better than the policy as it is."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from advisor.policy import DepthRule
from benchmarks.markdown import number
from benchmarks.options import one_of
from benchmarks.provenance import AsJson, Out, emit, measuring_commit
from benchmarks.studies.gains import SIGNIFICANCE
from benchmarks.studies.matching import extrapolated, match_total, scale_all
from benchmarks.studies.reference import (
    Outcome,
    Reference,
    gain,
    octaves_around,
    recorded,
    references,
    tried,
    with_rules,
)
from benchmarks.transfer.bench import PROCESSES, THREADS, Bench
from benchmarks.transfer.cases import Case, chosen_cases
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.sweeps import ADVISED, Method, Profiles
from benchmarks.transfer.training import Advice, Recording

_console = Console()


@dataclass(frozen=True, slots=True)
class Idea:
    """Something that might do better.

    Attributes:
        key: Short, for the command line.
        name: In words.
        cases: Where it is tried: on none of them a question of the ablations was asked, so neither
            did the idea come up there, nor was a default chosen.
        method: How to be advised with it on a case.
        without: The same without it.
        status: ``default`` or ``option`` where the policy has it already; empty: it has not.
        profiles: Other profiles than the base's; None: those.
    """

    key: str
    name: str
    cases: tuple[Case, ...]
    method: Callable[[Case], Method] = lambda _case: ADVISED
    without: Method = ADVISED
    status: Literal["default", "option", ""] = ""
    profiles: Callable[[Bench, Reference], Profiles] | None = None


def _elements_per_step(setting: Setting) -> int:
    return setting.batch_size * (setting.context if setting.reads_text else 1)


def _for_less_noise(case: Case) -> Method:
    """Move the outputs by more where a step sees more, by the square root of how much more."""
    factor = math.sqrt(_elements_per_step(case.big) / _elements_per_step(case.base))
    return replace(ADVISED, advice=Advice(adjust=partial(scale_all, factor)))


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


def _chosen(*named: tuple[str, str]) -> tuple[Case, ...]:
    return tuple(case for axis, model in named for case in chosen_cases(axis, model, "Adam"))


_GPT = Setting("char_gpt_post", width=32)
_ADAM_OCTAVES = tuple(range(-4, -10, -1))
_GROWING_IN_BATCH = (  # the transfer benchmark has others, from which the idea came
    Case(
        "batch_size",
        "Adam",
        replace(_GPT, batch_size=4),
        replace(_GPT, batch_size=32),
        _ADAM_OCTAVES,
    ),
    Case(
        "sequence_length",
        "Adam",
        replace(_GPT, model="char_gpt_post_mod", context=16),
        replace(_GPT, model="char_gpt_post_mod", context=128),
        _ADAM_OCTAVES,
    ),
    Case(
        "batch_size",
        "SGD",
        replace(_GPT, model="char_gpt_pre", batch_size=4),
        replace(_GPT, model="char_gpt_pre", batch_size=32),
        tuple(range(1, -5, -1)),
    ),
    Case(
        "batch_size",
        "Adam",
        Setting("res_mlp", width=64, depth=4, batch_size=4),
        Setting("res_mlp", width=64, depth=4, batch_size=32),
        tuple(range(-5, -11, -1)),
        seeds=tuple(range(8)),
    ),
)
_DEEPER = _chosen(
    ("depth", "char_gpt_post_mod"), ("width_depth", "char_gpt_pre"), ("width_depth", "res_mlp")
)
_WIDER_ALONE = _chosen(("width", "conv_net"))
_OTHERS = (
    *_chosen(("width", "char_gpt_post_mod")),
    *_WIDER_ALONE,
    *_chosen(("depth", "char_gpt_post")),
    *_DEEPER,
)
_LONGER = tuple(replace(case, steps=400) for case in (*_WIDER_ALONE, *_DEEPER))
_WITH_A_HALF = (  # at half the base's width the heads are as wide
    *(
        Case(
            "width",
            "Adam",
            replace(_GPT, model=model),
            replace(_GPT, model=model, width=128),
            _ADAM_OCTAVES,
        )
        for model in ("char_gpt_post", "char_gpt_post_mod")
    ),
    *_WIDER_ALONE,
)

IDEAS = (
    Idea(
        "batch",
        "the square root of the batch",
        _GROWING_IN_BATCH,
        _for_less_noise,
    ),
    Idea(
        "total",
        "the whole step's rate matched too, by the Gram matrix",
        (*_OTHERS, *_GROWING_IN_BATCH),
        lambda _case: replace(ADVISED, advice=Advice(adjust=match_total)),
    ),
    Idea(
        "measured",
        "depth rule `measured`",
        _DEEPER,
        lambda _case: with_rules(depth_rule=DepthRule.MEASURED),
        status="option",
    ),
    Idea(
        "extrapolation",
        "a profile extrapolated from two sizes",
        _WITH_A_HALF,
        profiles=_from_two_sizes,
    ),
    Idea(
        "confidence",
        "moves weighed by confidence",
        _OTHERS,
        without=with_rules(weigh_by_confidence=False),
        status="default",
    ),
    Idea(
        "averaging",
        "multipliers averaged over the training so far, in 400 steps",
        _LONGER,
        without=with_rules(averaging_window=0.0),
        status="default",
    ),
    Idea(
        "once",
        "the first answer kept for good",
        _OTHERS,
        lambda _case: with_rules(first_step_only=True),
        status="option",
    ),
)


def _quick(case: Case) -> Case:
    return replace(case, seeds=(0,), steps=100)


def judged(pairs: Sequence[tuple[Outcome, Outcome]]) -> dict[str, Any]:
    """Say whether an idea wins: its regret is lower, beyond the seeds' noise.

    Args:
        pairs: Outcomes with and without it, one pair a case.

    Returns:
        Mean regrets (None: a case diverged), and what their difference is worth.
    """
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    gained = gain(one, other)
    return {
        "regret_with": _mean_regret(one),
        "regret_without": _mean_regret(other),
        "standard_error": gained.standard_error if gained else None,
        "chance": gained.chance if gained else None,
        "diverged": sum(not mine.regrets or not its.regrets for mine, its in pairs),
        "wins": gained is not None and gained.is_beyond_noise and gained.mean > 0,
    }


def _mean_regret(outcomes: Sequence[Outcome]) -> float | None:
    known = [outcome.regret for outcome in outcomes if outcome.regret is not None]
    return statistics.fmean(known) if len(known) == len(outcomes) else None


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
        count = found["diverged"]
        return f"diverged in {count} case{'s' if count > 1 else ''}; {became}"
    gained, error = found["regret_without"] - found["regret_with"], found["standard_error"]
    if error is None:
        return f"{gained:+.4f} nats, of one seed, which tells no noise; {became}"
    if found["chance"] >= SIGNIFICANCE:
        verdict = "no difference beyond the seeds' noise"
    else:
        verdict = "wins" if gained > 0 else "loses"
    return f"{verdict}: {gained:+.4f} ± {error:.4f} nats; {became}"


def ideas(
    *,
    idea: Annotated[
        list[str] | None,
        typer.Option(
            help="This idea alone, by its key; may be given again.",
            callback=one_of([each.key for each in IDEAS]),
        ),
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="One case an idea, one seed (about 5 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Try what might beat the policy, on cases that no default was chosen by (about 1 h)."""
    rows: list[dict[str, Any]] = []
    merged: tuple[str, ...] = ()
    if idea and out is not None and out.exists():  # what others gave stays
        rows, merged = json.loads(out.read_text("utf-8"))["ideas"], ("--idea",)
    known: dict[Case, Reference] = {}
    outcomes: dict[tuple[Case, str], Outcome] = {}
    with bench_with_progress("ideas") as bench:
        for each in IDEAS:
            if idea and each.key not in idea:
                continue
            cases = [_quick(case) for case in each.cases[-1:]] if is_quick else each.cases
            missing = [case for case in cases if case not in known]
            known |= dict(zip(missing, references(bench, missing), strict=True))
            row = _tried(bench, each, [known[case] for case in cases], outcomes)
            rows = [*(old for old in rows if old["name"] != each.name), row]
            _emit(rows, merged, as_json=False, out=out)  # what is done is kept
    _emit(rows, merged, as_json=as_json, out=out)
    if not as_json:
        _print(rows)


def _emit(
    rows: list[dict[str, Any]], merged: Sequence[str], *, as_json: bool, out: Path | None
) -> None:
    figures = {"ideas": rows, "processes": PROCESSES}
    emit(figures, as_json=as_json, out=out, without=merged, threads=THREADS)


def _tried(
    bench: Bench,
    idea: Idea,
    chosen: Sequence[Reference],
    known: dict[tuple[Case, str], Outcome],
) -> dict[str, Any]:
    """Try an idea; what it is compared with is kept in ``known``."""
    pairs = []
    for reference in chosen:
        profiles = None if idea.profiles is None else idea.profiles(bench, reference)
        without = reference.case, repr(idea.without)  # messages have no hash
        if without not in known:
            known[without] = tried(bench, reference, idea.without)
        pairs.append((
            tried(bench, reference, idea.method(reference.case), profiles),
            known[without],
        ))
    found_out = judged(pairs)
    return {
        "name": idea.name,
        **found_out,
        "kept": idea.status != "",
        "commit": measuring_commit(),
        "text": in_words(found_out, idea.status),
        "cases": {
            reference.case.name: {
                "with": one.regret,
                "without": other.regret,
                "with_by_seed": one.regrets,
                "without_by_seed": other.regrets,
            }
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
