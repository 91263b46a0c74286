"""``python -m benchmarks ideas``: changes that might do better than the default policy."""

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
from benchmarks.studies.gains import SIGNIFICANCE, Regrets, gain
from benchmarks.studies.matching import extrapolated, match_total, scale_all
from benchmarks.studies.reference import (
    Outcome,
    Reference,
    octaves_around,
    recorded,
    references,
    tried,
    with_rules,
)
from benchmarks.studies.signal import best_step_factor
from benchmarks.transfer.bench import PROCESSES, THREADS, Bench
from benchmarks.transfer.cases import Case, chosen_cases
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.sweeps import ADVISED, Method, Profiles
from benchmarks.transfer.training import Advice, Recording, Training

_console = Console()


@dataclass(frozen=True, slots=True)
class Idea:
    """A change that might do better.

    Attributes:
        key: Its name on the command line.
        name: Its description in tables.
        cases: The cases on which it is tried. They are held out: no question of the ablations uses
            them, so no idea was found and no default was chosen on them.
        method: Returns the advised method with the idea, for a case and its base.
        without: The method without the idea.
        status: ``default`` or ``option`` if the policy has the idea, else ``not in the policy``.
        profiles: Returns the profiles to use; None for those of the base's sweep.
    """

    key: str
    name: str
    cases: tuple[Case, ...]
    method: Callable[[Reference], Method] = lambda _reference: ADVISED
    without: Method = ADVISED
    status: Literal["default", "option", "not in the policy"] = "not in the policy"
    profiles: Callable[[Bench, Reference], Profiles] | None = None


def _elements_per_step(setting: Setting) -> int:
    return setting.batch_size * (setting.context if setting.reads_text else 1)


def _scaled_for_less_noise(reference: Reference) -> Method:
    """Scale multipliers by the square root of how much more data a step of the big model sees."""
    case = reference.case
    factor = math.sqrt(_elements_per_step(case.big) / _elements_per_step(case.base))
    return replace(ADVISED, advice=Advice(adjust=partial(scale_all, factor)))


def _scaled_for_more_signal(reference: Reference) -> Method:
    """Scale multipliers by the square root of how much more of a gradient is signal."""
    case = reference.case
    base, big = (
        Training(setting, case.base, case.optimizer, 2.0**reference.octave, case.steps, seed=0)
        for setting in (case.base, case.big)
    )
    factor = best_step_factor(base, big)
    return replace(ADVISED, advice=Advice(adjust=partial(scale_all, factor)))


def _from_two_sizes(bench: Bench, reference: Reference) -> Profiles:
    """Extrapolate to the big model's width from the base and a model of half the base's width."""
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
_LARGER_BATCHES = (  # not those of the transfer benchmark, where the idea came up
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
_WIDER = _chosen(("width", "conv_net"))
_OTHERS = (
    *_chosen(("width", "char_gpt_post_mod")),
    *_WIDER,
    *_chosen(("depth", "char_gpt_post")),
    *_DEEPER,
)
_LONGER = tuple(replace(case, steps=400) for case in (*_WIDER, *_DEEPER))
_WITH_HALF_WIDTH = (  # the width of a head stays the same at half the base's width
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
    *_WIDER,
)

IDEAS = (
    Idea(
        "batch",
        "multipliers scaled by the square root of the batch",
        _LARGER_BATCHES,
        _scaled_for_less_noise,
    ),
    Idea(
        "signal",
        "multipliers scaled by the square root of the measured signal of a gradient",
        _LARGER_BATCHES,
        _scaled_for_more_signal,
    ),
    Idea(
        "total",
        "total rate matched too, by the Gram matrix",
        (*_OTHERS, *_LARGER_BATCHES),
        lambda _reference: replace(ADVISED, advice=Advice(adjust=match_total)),
    ),
    Idea(
        "measured",
        "depth rule `measured`",
        _DEEPER,
        lambda _reference: with_rules(depth_rule=DepthRule.MEASURED),
        status="option",
    ),
    Idea(
        "extrapolation",
        "a profile extrapolated from two sizes",
        _WITH_HALF_WIDTH,
        profiles=_from_two_sizes,
    ),
    Idea(
        "confidence",
        "moves weighted by confidence",
        _OTHERS,
        without=with_rules(weigh_by_confidence=False),
        status="default",
    ),
    Idea(
        "averaging",
        "multipliers averaged over the training so far, 400 steps",
        _LONGER,
        without=with_rules(averaging_window=0.0),
        status="default",
    ),
    Idea(
        "once",
        "first recommendation kept",
        _OTHERS,
        lambda _reference: with_rules(first_step_only=True),
        status="option",
    ),
)


def _quick(case: Case) -> Case:
    return replace(case, seeds=(0,), steps=100)


def judge(with_idea: Regrets, without_idea: Regrets) -> dict[str, Any]:
    """Return whether an idea wins, that is, lowers the regret significantly.

    Args:
        with_idea: Regrets with the idea, by case and seed.
        without_idea: Regrets on the same cases without the idea.

    Returns:
        Mean regrets (None if a case diverged) and the significance of their difference.
    """
    gained = gain(with_idea, without_idea)
    pairs = zip(with_idea, without_idea, strict=True)
    return {
        "regret_with": _mean_regret(with_idea),
        "regret_without": _mean_regret(without_idea),
        "standard_error": gained.standard_error if gained else None,
        "chance": gained.p_value if gained else None,
        "diverged": sum(not mine or not its for mine, its in pairs),
        "wins": gained is not None and gained.is_significant and gained.mean > 0,
    }


def _mean_regret(regrets: Regrets) -> float | None:
    return statistics.fmean(map(statistics.fmean, regrets)) if all(regrets) else None


def conclusion_of(row: Mapping[str, Any]) -> str:
    """Return what a stored row says about its idea.

    Args:
        row: An entry of ``ideas.json``.
    """
    if row["diverged"]:
        return f"diverged in {row['diverged']} case{'s' if row['diverged'] > 1 else ''}"
    gained, error = row["regret_without"] - row["regret_with"], row["standard_error"]
    if error is None:
        return f"{gained:+.4f} nats with one seed, so the noise is not known"
    if row["chance"] >= SIGNIFICANCE:
        verdict = "no significant difference"
    else:
        verdict = "better" if gained > 0 else "worse"
    return f"{verdict}: {gained:+.4f} ± {error:.4f} nats"


def ideas(
    *,
    idea: Annotated[
        list[str] | None,
        typer.Option(
            help="Try only this idea; can be repeated.",
            callback=one_of([each.key for each in IDEAS]),
        ),
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Use one case per idea and one seed (about 5 min).")
    ] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Try ideas that might beat the default policy, on held-out cases (about 1 h)."""
    rows: list[dict[str, Any]] = []
    merged: tuple[str, ...] = ()
    if idea and out is not None and out.exists():  # keep the other ideas
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
            _emit(rows, merged, as_json=False, out=out)  # keep each finished idea
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
    """Try an idea; ``known`` collects the outcomes without the ideas."""
    pairs = []
    for reference in chosen:
        profiles = None if idea.profiles is None else idea.profiles(bench, reference)
        without = reference.case, repr(idea.without)  # a Method holds messages, which have no hash
        if without not in known:
            known[without] = tried(bench, reference, idea.without)
        pairs.append((
            tried(bench, reference, idea.method(reference), profiles),
            known[without],
        ))
    return {
        "name": idea.name,
        **judge([one.regrets for one, _ in pairs], [other.regrets for _, other in pairs]),
        "status": idea.status,
        "commit": measuring_commit(),
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
        *("idea", "cases", "regret with", "without", "± of the difference", "better"),
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
