"""Transfer in words and tables: cases, alternatives, ablations, ideas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.studies.gains import gain_by_seed

_AIM_WITHIN = 0.9  # of the cases
_AIM_REGRET = 0.02  # nats
_OCTAVE = 1.0
_OF_ALTERNATIVES = """\
The base's best learning rate used on the scaled model, in every way that is in use. Regret is
against the best of a full search on the plain model, so below 0 is better than that search; after
± stands the deviation between seeds. The
parametrisations know from the shapes what the others measure, and so cost no time; they want every
tensor's role in the code. Extra time is what measured steps add to 150 short ones of small models,
where measuring weighs most; [a larger one](#what-measuring-adds-to-a-training) pays less. Scaling
costs every step a little beside that ([how much](#how-the-cost-grows)). Of the published procedure
the estimator, the number of probes and the intervals are the authors', the code is ours."""
_OURS = "advised"
_OF_DIFFERENCES = """\
Each method's regret less that of `advised`, over its cases, with the standard error from
differences seed by seed; and the cases in which a t-test at 5% tells them apart:"""
_OF_ABLATIONS = """\
The setting in bold is the default. Shifts are the largest of a question's cases, within the octave
to each side that is tried; regrets are means over cases, after ± stands their standard error.
What follows is told from differences seed by seed, by a t-test at 5%. Extra time is that of
measured steps, in 150 to 1,000 short ones, told to a few percent."""
_OF_IDEAS = """\
Tried on cases of which no question above was asked, so that neither did the idea come up there nor
was a default chosen; regrets are means over them. Behind the verdict stands by how much the idea
lowers the regret, with the standard error of that, from differences seed by seed; it wins where a
t-test tells them apart at 5%."""
_OF_SWEEPS = """\
The sweeps behind them, one picture for each thing that is scaled. Lines are means over seeds, bands
reach from the least to the largest; the dotted upright line is the base's best learning rate.
Losses far above the best are cut off, and so are learning rates at which a seed diverged."""


def name_of(case: Mapping[str, Any]) -> str:
    """Return a case's name for a person."""
    return f"{spoken(case['axis'])}: {case['model']}, {case['optimizer']}"


def spoken(name: str) -> str:
    """Return an identifier such as ``batch_size`` as words."""
    return name.replace("_", " ")


def axes_of(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is scaled in the cases, in their order, each once."""
    return list(dict.fromkeys(case["axis"] for case in cases))


def slug(text: str) -> str:
    """Return a name as part of a file's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def within_an_octave(case: Mapping[str, Any], model: str = "advised") -> bool:
    """Return whether the best learning rate stayed within an octave of the base's.

    Args:
        case: The case.
        model: ``plain`` or ``advised``.
    """
    shift = case[f"shift_{model}"]
    return shift is not None and abs(shift) <= _OCTAVE


def transfer(figures: Mapping[str, Any]) -> str:
    """Return the section on transfer."""
    cases = figures["cases"]
    axes = axes_of(cases)
    parts = [_summary(figures), _cases(cases)]
    if failures := [case for case in cases if not within_an_octave(case) or case.get("note")]:
        parts += ["What fails, and what else is to be said of a case:", _notes(failures)]
    parts += [
        _picture("How far the best learning rate moved, plain and advised", "shift"),
        _picture("Regret of the base's best learning rate, plain and advised", "regret"),
        _OF_SWEEPS,
        *(
            _picture(f"Learning-rate sweeps, {spoken(axis)}", f"sweeps-{slug(axis)}")
            for axis in axes
        ),
    ]
    if any(case.get("base") for case in cases):
        parts += ["What was trained:", _settings(cases)]
    return "\n\n".join(parts)


def _picture(words: str, name: str) -> str:
    return f"![{words}](../images/results/transfer-{name}.svg)"


def _summary(figures: Mapping[str, Any]) -> str:
    cases = figures["cases"]
    advised = sum(within_an_octave(case) for case in cases)
    plain = sum(within_an_octave(case, "plain") for case in cases)
    share = number(figures["within_one_octave"], ".0%")
    return (
        "Learning rates are swept in octaves on a base and on a scaled model, plainly and advised "
        "through the service. The advised model's best learning rate is within one octave of the "
        f"base's in **{advised} of {len(cases)} cases** ({share}; the aim is {_AIM_WITHIN:.0%}), "
        f"the plain model's in {plain}. Taking the base's best learning rate without any search "
        f"costs the advised model a median of **{number(figures['median_regret'])} nats** "
        f"(the aim is {_AIM_REGRET}) against the best of a full sweep of the plain one; below zero "
        "it does better than that sweep."
    )


def _cases(cases: Sequence[Mapping[str, Any]]) -> str:
    heads = (
        "scaled", "model", "optimizer", "seeds", "shift plain", "shift advised", "regret",
        "loss plain", "loss advised", "best plain", "saved at first", "saved later",
    )  # fmt: skip
    rows = [
        (
            spoken(case["axis"]),
            case["model"],
            case["optimizer"],
            _seeds(case["seeds"]),
            _shift(case, "plain"),
            _shift(case, "advised"),
            _with_spread(case, "regret", "+.3f"),
            _with_spread(case, "loss_plain", ".3f"),
            _with_spread(case, "loss_advised", ".3f"),
            _with_spread(case, "loss_best_plain", ".3f"),
            number(case.get("search_saved_with_base"), ".0%"),
            number(case.get("search_saved"), ".0%"),
        )
        for case in cases
    ]
    words = (
        "Shifts in octaves, regret and losses in nats: training losses, means over the last fifth "
        "of the steps. Losses are at the base's best learning rate, `best plain` at the plain "
        "model's own; after ± stands the deviation between seeds. `saved at first` is the part of "
        "the time of the plain model's sweep that the base's sweep and one advised run do not "
        "take; `saved later` what one advised run does not, as for further models of that profile."
    )
    if any(case.get("at_edge") for case in cases):
        words += r" \* The best learning rate is the last one that was tried, on one side."
    return f"{table(heads, rows)}\n\n{words}"


def _shift(case: Mapping[str, Any], model: str) -> str:
    """Return a shift, with an asterisk where it may be larger."""
    is_at_edge = {"base", model} & set(case.get("at_edge") or ())
    return number(case[f"shift_{model}"], "+.3g") + (r"\*" if is_at_edge else "")


def _with_spread(case: Mapping[str, Any], name: str, form: str) -> str:
    """Return a figure with its deviation between seeds, where there is one."""
    spread = (case.get("spread") or {}).get(name)
    figure = number(case[name], form)
    return figure if spread is None else f"{figure} ± {spread:.3f}"


def _notes(cases: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"- **{name_of(case)}** ({number(case['shift_advised'], '+.3g')} octaves): "
        f"{case.get('note') or 'not explained yet.'}"
        for case in cases
    )


def _settings(cases: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            name_of(case),
            str(case.get("base") or "-"),
            str(case.get("big") or "-"),
            number(case.get("base_learning_rate"), ".4g"),
        )
        for case in cases
    ]
    return table(("case", "base", "scaled", "the base's best learning rate"), rows)


def alternatives(figures: Mapping[str, Any]) -> str:
    """Return the section on what else can be done."""
    rows = [
        (
            f"{spoken(row['axis'])}, {spoken(row['model'])}",
            row["method"],
            number(row["shift"], "+.3g"),
            regret_of(row),
            number(row["extra_cost_percent"], "+.1f"),
            str(row["code_changes"]),
            _seeds(row["seeds"]),
        )
        for row in figures["rows"]
    ]
    heads = (
        "scaled", "method", "shift, octaves", "regret, nats", "extra time, %",
        "changes in the code", "seeds",
    )  # fmt: skip
    return "\n\n".join([
        _OF_ALTERNATIVES,
        table(heads, rows),
        _OF_DIFFERENCES,
        _against_advised(figures["rows"]),
    ])


def _against_advised(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how far each method's regret is above that of the advised model."""
    by_case: dict[str, dict[str, Sequence[float]]] = {}
    for row in rows:
        case = f"{spoken(row['axis'])} {spoken(row['model'])}"
        by_case.setdefault(case, {})[row["method"]] = row.get("regrets") or ()
    methods = dict.fromkeys(row["method"] for row in rows if row["method"] != _OURS)
    return table(
        ("method", "cases", "regret above that of advised, nats", "better in", "worse in"),
        [_difference(method, by_case) for method in methods],
    )


def _difference(
    method: str, by_case: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[str, ...]:
    differences = {
        case: [its - own for its, own in zip(found[method], found[_OURS], strict=True)]
        for case, found in by_case.items()
        if found.get(method) and found.get(_OURS)
    }
    if not differences:
        return method, "0", "-", "", ""
    told = {case: gain_by_seed([by_seed]) for case, by_seed in differences.items()}
    over_all = gain_by_seed(list(differences.values()))
    error = "" if over_all.standard_error is None else f" ± {over_all.standard_error:.3f}"
    apart = "" if over_all.is_beyond_noise else ", not told apart"
    better, worse = (
        ", ".join(c for c, one in told.items() if one.is_beyond_noise and one.mean * sign > 0)
        for sign in (-1, 1)
    )
    return method, str(len(differences)), f"{over_all.mean:+.3f}{error}{apart}", better, worse


def ablations(figures: Mapping[str, Any]) -> str:
    """Return the section on what the defaults rest on."""
    return "\n\n".join([
        _OF_ABLATIONS,
        *map(_ablation, figures["ablations"]),
    ])


def _ablation(ablation: Mapping[str, Any]) -> str:
    default = str(ablation["default"])
    rows = [
        (
            f"**{row['setting']}**" if str(row["setting"]) == default else str(row["setting"]),
            number(row["shift"], "+.3g"),
            regret_of(row),
            number(row["extra_cost_percent"], "+.1f"),
            _seeds(row["seeds"]),
        )
        for row in ablation["rows"]
    ]
    heads = ("setting", "shift, octaves", "regret, nats", "extra time, %", "seeds")
    cases = ", ".join(name.replace("_", " ") for name in ablation["rows"][0].get("cases", ()))
    told = f"{ablation['text']}." + (f" Mean over: {cases}." if cases else "")
    return f"### {ablation['question']}\n\n{told}\n\n{table(heads, rows)}"


def ideas(figures: Mapping[str, Any]) -> str:
    """Return the section on what was tried beyond the paper."""
    rows = [
        (
            idea["name"],
            str(len(idea["cases"])),
            number(idea["regret_with"], "+.3f"),
            number(idea["regret_without"], "+.3f"),
            "yes" if idea["kept"] else "no",
            idea["text"],
        )
        for idea in figures["ideas"]
    ]
    heads = ("idea", "cases", "regret with it, nats", "without", "in the policy", "why")
    return f"{_OF_IDEAS}\n\n{table(heads, rows)}"


def regret_of(row: Mapping[str, Any]) -> str:
    """Return a regret with its spread, where there is one."""
    spread = row.get("regret_spread", row.get("regret_error"))
    figure = number(row["regret"], "+.3f")
    return figure if spread is None else f"{figure} ± {spread:.3f}"


def _seeds(seeds: int | Sequence[int]) -> str:
    return str(seeds if isinstance(seeds, int) else len(seeds))
