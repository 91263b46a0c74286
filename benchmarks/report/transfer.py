"""The sections on transfer of the results page: methods, cases, ablations, ideas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.report.methods import (
    METHODS_TEXT,
    SPOKEN,
    by_axis,
    by_case,
    not_measured,
    overall,
    spoken,
)
from benchmarks.report.octave_cases import Case, axes_of, octave_cases
from benchmarks.report.verdicts import choice, verdicts
from benchmarks.studies import ideas as ideas_study
from benchmarks.studies.ablations import conclusion_of
from benchmarks.transfer.methods import DEFAULT, STANDARD
from benchmarks.transfer.notes import note_on
from benchmarks.transfer.optimum import Verdict

AIM_WITHIN = 0.95  # part of the cases that can be told
AIM_REGRET = 0.01  # nats
_ABLATIONS = """\
The setting in bold is the default. A shift is the largest over a question's cases, and at most
one octave to each side is tried. Regrets are means over cases; ± is their standard error.
Conclusions come from differences by seed, with a t-test at 5%. Added time is what measured steps
add to 150 to 1,000 short steps, accurate to a few percent."""
_IDEAS = """\
Ideas were tried on cases that no question above uses, so that no idea was found and no default
was chosen on them. Regrets are means over these cases. A conclusion gives the amount by which
the idea lowers the regret, with its standard error from differences by seed; a difference is
significant if a t-test at 5% finds it."""
_GRID = """\
The same cases in the grid of whole octaves, without a fit, for the plain and the advised model:
with the default method, or with `measured` where that has not been measured yet."""
_METHODS_PICTURE = "Regret of each method, by what is scaled, with intervals"
_SWEEPS = """\
The pictures below show the sweeps, one picture for each axis that is scaled. Lines are means
over seeds, and bands reach from the lowest to the highest loss. The dotted vertical line marks
the base's best learning rate. Losses far above the best are cut off, and so are learning rates
at which a seed diverged."""


def name_of(case: Mapping[str, Any]) -> str:
    """Return a case's name as readable text."""
    return f"{spoken(case['axis'])}: {case['model']}, {case['optimizer']}"


def slug(text: str) -> str:
    """Return a name in the form that file names use."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def is_missed(case: Case) -> bool:
    """Return whether the advised model's best learning rate moved by more than an octave.

    Args:
        case: The case.
    """
    return bool(case["fitted"]["advised"]["verdict"] == Verdict.BEYOND)


def transfer(figures: Mapping[str, Any]) -> str:
    """Return the section on transfer."""
    records, cases = figures["cases"], octave_cases(figures)
    axes = axes_of(cases)
    parts = [_summary(figures), *([_picture(_METHODS_PICTURE, "methods")] if records else [])]
    parts += [METHODS_TEXT, overall(records)]
    parts += ["### Against the best alternative", verdicts(figures)]
    parts += ["### By what is scaled", by_axis(records), "### The default method", choice(figures)]
    parts += ["### Case by case", by_case(records)]
    if missing := not_measured(records):
        parts += ["### Not measured yet", missing]
    if cases:
        parts += ["### In whole octaves", _GRID, _cases(cases)]
    if noted := [case for case in cases if is_missed(case) or note_on(case)]:
        parts += ["Notes on the cases that miss the aim, and on others:", _notes(noted)]
    if cases:
        parts += [
            _picture("How far the best learning rate moved, plain and advised", "shift"),
            _picture("Regret of the base's best learning rate, plain and advised", "regret"),
            "### The sweeps",
            _SWEEPS,
            *(
                _picture(f"Learning-rate sweeps, {spoken(axis)}", f"sweeps-{slug(axis)}")
                for axis in axes
            ),
            "The models that were trained:",
            _settings(cases),
        ]
    return "\n\n".join(parts)


def larger(figures: Mapping[str, Any]) -> str:
    """Return the section on the larger case."""
    case = figures["cases"][0]
    return (
        f"A GPT on tokens of a byte-pair encoding ({case['base']}) is scaled to {case['big']}: "
        f"{case['steps']} steps of {case['optimizer']}, {len(case['seeds'])} seed, learning rates "
        f"in whole octaves.\n\n{by_case(figures['cases'])}"
    )


def _picture(words: str, name: str) -> str:
    return f"![{words}](../images/results/transfer-{name}.svg)"


def _summary(figures: Mapping[str, Any]) -> str:
    default, standard = (figures["methods"].get(name) for name in (DEFAULT, STANDARD))
    if default is None or standard is None:
        return "No case has been measured with the standard and the default method."
    claim, plain = default["claiming"], standard["claiming"]
    return (
        "Learning rates are swept on a base and on a scaled model, plain and with each method. In "
        f"the {claim['cases']} cases that make the claim, the best learning rate with the default "
        f"method, {SPOKEN[DEFAULT]}, is within one octave of the base's in **{claim['within']} of "
        f"{claim['told']}** ({number(claim['within_one_octave'], '.0%')}; the aim is "
        f"{AIM_WITHIN:.0%}), and the plain model's in {plain['within']} of {plain['told']}. "
        f"{claim['cases'] - claim['told']} more cannot tell for {SPOKEN[DEFAULT]}: seeds differ "
        "too much around its best learning rate. At the base's best learning rate, without any "
        f"search, its loss is a median of **{number(claim['median_regret'])} nats** (the aim is "
        f"{AIM_REGRET}) above the best of a full sweep of the plain model; a negative value is "
        f"better than that sweep. Over all {default['cases']} cases, it is within an octave in "
        f"{default['within']} of {default['told']}, with a median of "
        f"{number(default['median_regret'])} nats."
    )


def _cases(cases: Sequence[Case]) -> str:
    heads = (
        "scaled", "model", "optimizer", "seeds", "shift plain", "shift advised", "regret",
        "loss plain", "loss advised", "best plain", "saved first", "saved later",
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
            number(case["search_saved_with_base"], ".0%"),
            number(case["search_saved"], ".0%"),
        )
        for case in cases
    ]
    words = (
        "Shifts are in whole octaves. Losses are training losses in nats, averaged over the last "
        "fifth of the steps. Losses are at the base's best learning rate, except `best plain`, "
        "which is at the plain model's own best one; ± is the standard deviation over seeds. "
        "`saved first` is the part of the plain model's sweep time that the base's sweep and one "
        "advised run save; `saved later` is what one advised run saves, for further models that "
        "use the same profile."
    )
    if any(case["at_edge"] for case in cases):
        words += r" \* The best learning rate is at the edge of the sweep."
    return f"{table(heads, rows)}\n\n{words}"


def _shift(case: Mapping[str, Any], model: str) -> str:
    """Return a shift, with an asterisk if it is only a lower bound."""
    is_at_edge = {"base", model} & set(case["at_edge"])
    return number(case[f"shift_{model}"], "+.3g") + (r"\*" if is_at_edge else "")


def _with_spread(case: Mapping[str, Any], name: str, form: str) -> str:
    """Return a figure with its standard deviation over seeds, if it is known."""
    spread = case["spread"][name]
    figure = number(case[name], form)
    return figure if spread is None else f"{figure} ± {spread:.3f}"


def _notes(cases: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"- **{name_of(case)}** ({_fitted_shift(case)}): {note_on(case) or 'Not explained yet.'}"
        for case in cases
    )


def _fitted_shift(case: Mapping[str, Any]) -> str:
    """Return the shift of the fit, which is what a miss is judged by."""
    shift = case["fitted"]["advised"]["shift"]
    return "no shift: it diverged" if shift is None else f"{shift:+.2f} octaves"


def _settings(cases: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            name_of(case),
            case["base"],
            case["big"],
            number(case["base_learning_rate"], ".4g"),
        )
        for case in cases
    ]
    return table(("case", "base", "scaled", "base's best learning rate"), rows)


def ablations(figures: Mapping[str, Any]) -> str:
    """Return the section on what the defaults rest on."""
    return "\n\n".join([
        _ABLATIONS,
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
    heads = ("setting", "shift, octaves", "regret, nats", "added time, %", "seeds")
    cases = ", ".join(spoken(name) for name in ablation["rows"][0].get("cases", ()))
    text = f"Conclusion: {conclusion_of(ablation)}." + (f" Cases: {cases}." if cases else "")
    return f"### {ablation['question']}\n\n{text}\n\n{table(heads, rows)}"


def ideas(figures: Mapping[str, Any]) -> str:
    """Return the section on ideas beyond the paper."""
    rows = [
        (
            idea["name"],
            str(len(idea["cases"])),
            number(idea["regret_with"], "+.3f"),
            number(idea["regret_without"], "+.3f"),
            idea["status"],
            ideas_study.conclusion_of(idea),
        )
        for idea in figures["ideas"]
    ]
    heads = ("idea", "cases", "regret with it, nats", "without it", "status", "conclusion")
    return f"{_IDEAS}\n\n{table(heads, rows)}"


def regret_of(row: Mapping[str, Any]) -> str:
    """Return a regret with its spread, if it is known."""
    spread = row.get("regret_spread", row.get("regret_error"))
    figure = number(row["regret"], "+.3f")
    return figure if spread is None else f"{figure} ± {spread:.3f}"


def _seeds(seeds: int | Sequence[int]) -> str:
    return str(seeds if isinstance(seeds, int) else len(seeds))
