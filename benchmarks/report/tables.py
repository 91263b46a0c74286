"""Tables of trainings and of what multipliers do to them, rendered from the stored figures."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.report.transfer import regret_of
from benchmarks.studies.ablations import conclusion_of
from benchmarks.studies.questions import questions
from benchmarks.transfer.methods import DEFAULT, STANDARD


def demo(figures: dict[str, Any]) -> str:
    """Return the losses of the demo, by training setup."""
    rows = (
        ("base, where the learning rate was tuned", "base_loss"),
        ("wide model, plain, same learning rate", "plain_loss"),
        ("wide model, plain, its own best learning rate", "best_plain_loss"),
        ("wide model, **advised**, same learning rate", "advised_loss"),
    )
    return table(
        ("validation loss, nats per character", "Adam", "GPT-2's setup"),
        (
            (
                name,
                *(
                    f"**{number(found[key])}**" if key == "advised_loss" else number(found[key])
                    for found in (figures, figures["gpt2"])
                ),
            )
            for name, key in rows
        ),
    )


def practice(figures: dict[str, Any]) -> str:
    """Return the losses of each training setup: base, plain and advised."""
    heads = (
        "setup", "base", "plain", "plain, its best learning rate", "advised", "regret",
        "worst seed", "multipliers",
    )  # fmt: skip
    return table(
        heads,
        (
            (
                row["recipe"] + (" (harmed)" if row["harmed"] else ""),
                number(row["base"]),
                number(row["plain_same_lr"]),
                number(row["best_plain"]),
                number(row["advised"]),
                f"{number(row['regret'], '+.3f')} ± {row['noise']['regret']:.3f}",
                number(row["worst_seed"], "+.3f"),
                f"{row['min_multiplier']:.2g} to {row['max_multiplier']:.2g}",
            )
            for row in figures["rows"]
        ),
    )


def transfer(figures: dict[str, Any]) -> str:
    """Return how well learning rates transfer, over the cases that make the claim."""
    plain, advised = (figures["methods"][name]["claiming"] for name in (STANDARD, DEFAULT))

    def within(found: dict[str, Any]) -> str:
        return f"{found['within']} of {found['told']}"

    return table(
        ("the base's best learning rate on the scaled model", "plain", "advised"),
        (
            (
                "within an octave of the scaled model's own best, of the cases that can be told",
                within(plain),
                within(advised),
            ),
            (
                "median training loss above the best of a full search, nats",
                number(plain["median_regret"], "+.3f"),
                number(advised["median_regret"], "+.3f"),
            ),
        ),
    )


def references(figures: dict[str, Any]) -> str:
    """Return how references of one and of several recordings, smoothed or not, differ."""
    rows = figures["references"]
    smoothing = max(row["smoothing"] for row in rows)
    merged = max(row["recordings"] for row in rows)

    def change(recordings: int, *, smoothed: bool) -> str:
        """Return the mean change of the loss from that with one recording."""
        plain = {
            r["recipe"]: r["loss"] for r in rows if r["recordings"] == 1 and not r["smoothing"]
        }
        changes = [
            row["loss"] - plain[row["recipe"]]
            for row in rows
            if row["recordings"] == recordings and bool(row["smoothing"]) == smoothed
        ]
        return f"{statistics.fmean(changes):+.3f}"

    lines = table(
        ("setup", "reference", "distance", "loss, nats", "worst seed"),
        (
            (
                row["recipe"],
                ("one recording" if row["recordings"] == 1 else f"{row['recordings']} merged")
                + (", smoothed" if row["smoothing"] else ""),
                f"{row['distance']:.2f}",
                f"{row['loss']:.3f}",
                f"{row['worst']:.3f}",
            )
            for row in rows
        ),
    )
    return (
        "Setups of the practice benchmark: bases of width 24, recorded at their best learning "
        "rate, and models of width 96, advised with these references. The distance is the mean "
        "difference of logarithms from the recording of a seed that the reference was not made "
        f"of; smoothing is {smoothing:g}; each row has {figures['seeds']} seeds.\n\n{lines}\n\n"
        "Compared with one recording, the mean loss over setups changes by "
        f"{change(1, smoothed=True)} nats with smoothing, by {change(merged, smoothed=False)} with "
        f"a merge of {merged}, and by {change(merged, smoothed=True)} with both."
    )


def defaults(figures: dict[str, Any]) -> str:
    """Return what was measured about each default of the policy."""
    fields = {question.name: question.field for question in questions()}
    rows = []
    for answer in figures["ablations"]:
        by_name = {row["setting"]: row for row in answer["rows"]}
        others = [
            f"{name}: {regret_of(row)}"
            for name, row in by_name.items()
            if name != answer["default"]
        ]
        rows.append((
            answer["question"],
            fields.get(answer["name"]) or "-",
            f"{answer['default']}: {regret_of(by_name[answer['default']])}",
            "; ".join(others),
            str(conclusion_of(answer)),
        ))
    heads = ("question", "setting", "default: its regret, nats", "other choices", "conclusion")
    return table(heads, rows)


def warm_ups(figures: dict[str, Any]) -> str:
    """Return what references with another warm-up cost, at equal steps and at equal exposure."""
    rows = [row for row in figures["warm_ups"] if row["comparison"] != "own warm-up"]
    lines = table(
        ("setup", "base warms up", "run warms up", "compared at", "change of the loss, nats"),
        (
            (
                row["recipe"],
                f"{row['base_warm_up']:.0%}",
                f"{row['warm_up']:.0%}",
                row["comparison"],
                f"{row['change']:+.3f} ± {2 * row['error']:.3f}",
            )
            for row in rows
        ),
    )
    means = {
        comparison: statistics.fmean(r["change"] for r in rows if r["comparison"] == comparison)
        for comparison in ("equal steps", "equal exposure")
    }
    return (
        "Setups of the practice benchmark, whose base and run warm up over different parts of "
        "the training. The change is that of the advised model's loss from a reference with the "
        f"run's own warm-up, ± two standard errors over {figures['seeds']} seeds.\n\n{lines}\n\n"
        f"The mean change is {means['equal steps']:+.3f} nats at equal steps and "
        f"{means['equal exposure']:+.3f} at equal exposure."
    )
