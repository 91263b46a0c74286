"""The tables with figures in the pages, rendered from the stored figures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.report.transfer import regret_of
from benchmarks.studies.ablations import conclusion_of
from benchmarks.studies.questions import questions
from benchmarks.transfer.methods import DEFAULT, STANDARD


def estimator(figures: dict[str, Any]) -> str:
    """Return how well and how fast each estimator measures."""
    heads = ("model", "estimator", "RMSE", "bias", "noise", "worst group", "time", "time, K=4")
    return table(
        heads,
        (
            (
                f"`{model}`",
                f"`{name}`",
                f"{found['rmse']:.3f}",
                f"{found['abs_log_bias']:.4f}",
                f"{found['noise']:.4f}",
                f"{found['worst_bias']:+.1%}",
                f"{found['time_ratio']:.2f}",
                f"{found['time_ratio_k4']:.2f}",
            )
            for model, estimators in figures["models"].items()
            for name, found in estimators.items()
        ),
    )


_PARTS_OF_OVERHEAD = {
    "measuring_overhead": "by measurements",
    "stepping_overhead": "in each step",
}


def _percent(share: float | None) -> str:
    """Return a share in percent; a dash for older figures without it."""
    return "-" if share is None else f"{share:+.2%}"


def overhead(figures: dict[str, Any]) -> str:
    """Return what measuring adds to a training."""
    rows = table(
        (
            "procedure",
            "added time",
            *_PARTS_OF_OVERHEAD.values(),
            "added memory, relative to the parameters",
            "relative error",
            "measurements",
        ),
        (
            (
                {"ours": "ours, every 100 steps", "paper": "the paper's"}[name],
                f"{figures[name]['overhead']:+.1%}",
                *(_percent(figures[name].get(part)) for part in _PARTS_OF_OVERHEAD),
                f"{figures[name]['extra_memory_ratio']:+.2f}",
                f"{figures[name]['relative_error']:.2f}",
                str(figures[name]["measurements"]),
            )
            for name in ("ours", "paper")
        ),
    )
    return (
        f"Character GPT, {figures['parameters']:,} parameters, {figures['steps']} steps, "
        f"{figures['device']}:\n\n{rows}"
    )


def measuring(figures: dict[str, Any]) -> str:
    """Return what a measurement costs by size of the model."""
    return table(
        (
            "blocks",
            "width",
            "groups",
            "parameters",
            "time, ms",
            "time, training steps",
            "us per group",
        ),
        (
            (
                str(cost["blocks"]),
                str(cost["width"]),
                str(cost["groups"]),
                f"{cost['parameters']:,}",
                f"{cost['measurement_ms']:.1f}",
                f"{cost['step_ratio']:.2f}",
                f"{cost['us_per_group']:.0f}",
            )
            for cost in figures["measuring"]
        ),
    )


def stepping(figures: dict[str, Any]) -> str:
    """Return what multipliers cost in an optimizer step."""
    return table(
        (
            "AdamW",
            "tensors",
            "one group, ms",
            "rounded multipliers, ms",
            "multipliers that all differ, ms",
            "scaled update, ms",
        ),
        (
            (
                cost["kind"],
                str(cost["groups"]),
                f"{cost['plain_ms']:.2f}",
                f"{cost['rounded_ms']:.2f}",
                f"{cost['split_ms']:.2f}",
                f"{cost['update_ms']:.2f}",
            )
            for cost in figures["stepping"]
        ),
    )


def measurements(figures: dict[str, Any]) -> str:
    """Return what first and later measurements cost on each architecture."""
    rows = table(
        (
            *("architecture", "groups", "on a slow route", "a training step, ms"),
            *("first measurement", "later measurement", "variance between examples"),
        ),
        (
            (
                name.replace("_", " "),
                str(cost["groups"]),
                str(cost["slow"]),
                f"{1e3 * cost['step_s']:.0f}",
                f"{cost['first']:.1f}",
                f"{cost['later']:.1f}",
                ""
                if (variance := cost["variance_between_examples"]) is None
                else f"{variance:.2f}",
            )
            for name, cost in figures["architectures"].items()
        ),
    )
    return f"{rows}\n\n{_slow_first_measurements(figures['architectures'])}"


_USUAL_STEPS = 4  # of a training, that a first measurement takes at most on most architectures


def _slow_first_measurements(architectures: dict[str, Any]) -> str:
    """Return which first measurements take long, and why."""
    above = {name: cost for name, cost in architectures.items() if cost["first"] > _USUAL_STEPS}
    usual = len(architectures) - len(above)
    text = (
        f"The first measurement takes at most {_USUAL_STEPS} training steps on {usual} of "
        f"{len(architectures)}."
    )
    slow = [name for name, cost in above.items() if cost["slow"]]
    quick = [name for name, cost in above.items() if not cost["slow"]]
    if slow:
        text += (
            f" Above that are {_listed(slow)}: groups on the slow route need several chunks or "
            "probes."
        )
    if quick:
        text += (
            f" Above that are {_listed(quick)}: the checks call the model several times, and calls "
            "on a few examples take nearly as long as on many."
        )
    return text


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def summary(estimators: dict[str, Any], overheads: dict[str, Any]) -> str:
    """Return our estimator and the paper's in a few rows."""
    found = estimators["models"]["char_gpt"]
    pairs = [found[name] for name in ("per_example", "kronecker")]
    costs = [overheads[name] for name in ("ours", "paper")]
    size = f"{overheads['parameters'] / 1e6:.1f}M parameters"
    return table(
        ("a character GPT", "ours", "the paper's estimator, in our code"),
        (
            (
                "relative RMSE of a rate from one probe, against the exact rate",
                *(f"{f['rmse']:.2f}" for f in pairs),
            ),
            (
                "bias of the worst tensor's rate, against the exact rate",
                *(f"{f['worst_bias']:+.0%}" for f in pairs),
            ),
            (
                f"time added to {overheads['steps']} steps, measured every 100 steps, {size}",
                *(f"{cost['overhead']:+.1%}" for cost in costs),
            ),
            (
                "relative error that the rates report at the end of these steps",
                *(f"{cost['relative_error']:.2f}" for cost in costs),
            ),
            (
                "peak memory added, relative to the parameters",
                *(f"{cost['extra_memory_ratio']:+.2f}" for cost in costs),
            ),
        ),
    )


def registry(figures: dict[str, Any]) -> str:
    """Return what many profiles, and large ones, cost."""
    large = figures["large_profile"]
    rows = [
        (
            f"time to {action}: ratio, {figures['profiles']:,} profiles to 10",
            f"{figures[f'{name}_ratio']:.2f}",
        )
        for name, action in (
            ("get", "get a profile"),
            ("alias", "resolve an alias"),
            ("list", "list a page"),
            ("filter", "find one profile by two labels"),
        )
    ]
    size = f"a profile of {large['groups']:,} groups and {large['points']} points"
    rows += [
        (f"{size}: stored size", f"{large['bytes'] / 1e6:.1f} MB"),
        (f"{size}: time to register it through the service", f"{large['register_s']:.1f} s"),
        (f"{size}: time to resolve it for the first time", f"{large['resolve_s']:.1f} s"),
    ]
    return table(("what", "value"), rows)


def frameworks(figures: dict[str, Any]) -> str:
    """Return how measuring in JAX compares with measuring in PyTorch."""
    rows = [
        ("largest relative difference of exact unit rates", f"{figures['torch_jax_rate_gap']:.1e}"),
        ("RMSE of `per_example` in PyTorch, one probe", f"{figures['rmse_torch']:.3f}"),
        ("RMSE of `per_example` in JAX, one probe", f"{figures['rmse_jax']:.3f}"),
        ("bias of `per_example` in JAX", f"{figures['abs_log_bias_jax']:.3f}"),
        ("compilations by later measurements", str(figures["recompiles"])),
    ]
    for shape, cost in figures["probe_costs_jax"].items():
        examples, length = shape.split(" x ")
        positions = f"{length} position" + ("" if length == "1" else "s")
        rows.append((f"cost in gradients, {examples} examples of {positions}", f"{cost:.2f}"))
    return table(("what", "value"), rows)


def sizing(figures: dict[str, Any]) -> str:
    """Return what one process of the service handles, and what it takes."""
    stream, once = figures["stream"], figures["once"]
    rows = [
        ("streams, 100 groups, with telemetry: answers per second", f"{stream['per_second']:,.0f}"),
        ("32 streams, 100 groups, with telemetry: p99 latency", f"{stream['p99_ms']:.0f} ms"),
        ("unary calls, 100 groups: answers per second", f"{once['per_second']:,.0f}"),
        *(
            (f"streams, {int(groups):,} groups: answers per second", f"{per_second:,.0f}")
            for groups, per_second in figures["groups"].items()
        ),
        (
            f"unary calls: throughput ratio, {figures['profiles']:,} stored profiles to 10",
            f"{figures['profiles_ratio']:.2f}",
        ),
        (
            "memory of an open stream, 100 groups",
            f"{figures['bytes_per_stream'] / 1024:.0f} KiB",
        ),
        (
            "memory of a cached profile, 50 groups, 40 points",
            f"{figures['bytes_per_cached_profile'] / 1024:.0f} KiB",
        ),
        (
            "Redis: a measurement of 100 groups with its answer",
            f"{stream['redis_bytes_per_measurement'] / 1024:.1f} KiB",
        ),
        (
            "Redis: a small profile (4 groups, 10 points, an alias)",
            f"{figures['redis_bytes_per_profile'] / 1024:.1f} KiB",
        ),
        ("time from start to first answer", f"{figures['start_s']:.1f} s"),
        ("time of `import fslr`", f"{figures['import_s']:.2f} s"),
    ]
    if figures["workers_2_ratio"] is not None:
        rows.append((
            "throughput ratio, two processes to one",
            f"{figures['workers_2_ratio']:.2f}",
        ))
    return table(("one process", "value"), rows)


def comparison(figures: dict[str, Any]) -> str:
    """Return how the service compares with an echo server and with other services."""
    rows = []
    for kind, name in (("stream", "streams"), ("once", "unary calls")):
        found = figures[kind]
        for key, measure in (("throughput", "throughput"), ("p99", "p99 latency")):
            low, high = found[f"{key}_spread"]
            ratio = f"{found[f'{key}_ratio']:.2f} ({low:.2f} to {high:.2f})"
            rows.append((f"{name}: {measure}, to the echo server", ratio))
    rows += [
        (f"throughput, to {peer}", f"{figures['peers'][key]:,.0f}")
        for key, peer in (
            ("optuna", "Optuna's gRPC storage proxy"),
            ("vizier", "OSS Vizier's service"),
        )
        if figures["peers"][key] is not None
    ]
    return table(("the advisor, compared", "ratio (range over rounds)"), rows)


def demo(figures: dict[str, Any]) -> str:
    """Return the losses of the demo, by recipe."""
    rows = (
        ("base, where the learning rate was tuned", "base_loss"),
        ("wide model, plain, same learning rate", "plain_loss"),
        ("wide model, plain, its own best learning rate", "best_plain_loss"),
        ("wide model, **advised**, same learning rate", "advised_loss"),
    )
    return table(
        ("validation loss, nats per character", "Adam", "GPT-2's recipe"),
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
    """Return the losses of each recipe: base, plain and advised."""
    heads = (
        "recipe", "base", "plain", "plain, its best learning rate", "advised", "regret",
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
    """Return how well learning rates transfer, over all cases."""
    plain, advised = figures["methods"][STANDARD], figures["methods"][DEFAULT]

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
        ("recipe", "reference", "distance", "loss, nats", "worst seed"),
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
        "Recipes of the practice benchmark: bases of width 24, recorded at their best learning "
        "rate, and models of width 96, advised with these references. The distance is the mean "
        "difference of logarithms from the recording of a seed that the reference was not made "
        f"of; smoothing is {smoothing:g}; each row has {figures['seeds']} seeds.\n\n{lines}\n\n"
        "Compared with one recording, the mean loss over recipes changes by "
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
        ("recipe", "base warms up", "run warms up", "compared at", "change of the loss, nats"),
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
        "Recipes of the practice benchmark, whose base and run warm up over different parts of "
        "the training. The change is that of the advised model's loss from a reference with the "
        f"run's own warm-up, ± two standard errors over {figures['seeds']} seeds.\n\n{lines}\n\n"
        f"The mean change is {means['equal steps']:+.3f} nats at equal steps and "
        f"{means['equal exposure']:+.3f} at equal exposure."
    )
