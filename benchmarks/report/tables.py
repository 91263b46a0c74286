"""The tables that the figures of benchmarks/results become, in the pages that show them."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.markdown import table as _markdown
from benchmarks.report.transfer import regret_of, within_an_octave
from benchmarks.studies.questions import questions

FIGURES = Path("benchmarks/results")
PAGES = (
    Path("README.md"),
    Path("docs/explanation/measurement.md"),
    Path("docs/explanation/policy.md"),
    Path("docs/how-to/register-and-promote.md"),
    Path("docs/how-to/size.md"),
)


def _estimator(figures: dict[str, Any]) -> str:
    heads = ("model", "estimator", "RMSE", "bias", "noise", "worst group", "time", "time, K=4")
    return _markdown(
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
            for model, each in figures["models"].items()
            for name, found in each.items()
        ),
    )


def _overhead(figures: dict[str, Any]) -> str:
    table = _markdown(
        ("procedure", "time", "memory, of the parameters'", "relative error", "measurements"),
        (
            (
                {"ours": "ours, every 100 steps", "paper": "the paper's"}[name],
                f"{figures[name]['overhead']:+.1%}",
                f"{figures[name]['extra_memory_ratio']:+.2f}",
                f"{figures[name]['relative_error']:.2f}",
                str(figures[name]["measurements"]),
            )
            for name in ("ours", "paper")
        ),
    )
    return (
        f"Character GPT, {figures['parameters']:,} parameters, {figures['steps']} steps, "
        f"{figures['device']}:\n\n{table}"
    )


def _measuring(figures: dict[str, Any]) -> str:
    return _markdown(
        ("blocks", "width", "groups", "parameters", "ms", "training steps", "us a group"),
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


def _stepping(figures: dict[str, Any]) -> str:
    return _markdown(
        ("AdamW", "tensors", "one group, ms", "scaled rates, ms", "scaled update, ms"),
        (
            (
                cost["kind"],
                str(cost["groups"]),
                f"{cost['plain_ms']:.2f}",
                f"{cost['split_ms']:.2f}",
                f"{cost['update_ms']:.2f}",
            )
            for cost in figures["stepping"]
        ),
    )


def _summary(estimator: dict[str, Any], overhead: dict[str, Any]) -> str:
    found = estimator["models"]["char_gpt"]
    pairs = [found[name] for name in ("per_example", "kronecker")]
    costs = [overhead[name] for name in ("ours", "paper")]
    size = f"{overhead['parameters'] / 1e6:.1f}M parameters"
    return _markdown(
        ("a character GPT", "ours", "the paper's estimator, in our code"),
        (
            (
                "relative RMSE of a rate from one probe, against exact ones",
                *(f"{f['rmse']:.2f}" for f in pairs),
            ),
            (
                "bias of the worst tensor's rate, against exact ones",
                *(f"{f['worst_bias']:+.0%}" for f in pairs),
            ),
            (
                f"time added to {overhead['steps']} steps, measured every 100, {size}",
                *(f"{cost['overhead']:+.1%}" for cost in costs),
            ),
            (
                "relative error that its rates state at the end of these",
                *(f"{cost['relative_error']:.2f}" for cost in costs),
            ),
            (
                "peak memory added, relative to the parameters",
                *(f"{cost['extra_memory_ratio']:+.2f}" for cost in costs),
            ),
        ),
    )


def _registry(figures: dict[str, Any]) -> str:
    large = figures["large_profile"]
    rows = [
        (
            f"time to {words}, with {figures['profiles']:,} profiles over with 10",
            f"{figures[f'{name}_ratio']:.2f}",
        )
        for name, words in (
            ("get", "get a profile"),
            ("alias", "resolve an alias"),
            ("list", "list a page"),
            ("filter", "find one profile by two labels"),
        )
    ]
    rows += [
        (
            f"a profile of {large['groups']:,} groups x {large['points']} points, stored",
            f"{large['bytes'] / 1e6:.1f} MB",
        ),
        ("the same, registered through the service", f"{large['register_s']:.1f} s"),
        ("the same, resolved for the first time", f"{large['resolve_s']:.1f} s"),
    ]
    return _markdown(("figure", "value"), rows)


def _sizing(figures: dict[str, Any]) -> str:
    stream, once = figures["stream"], figures["once"]
    rows = [
        ("streams of 100 groups, telemetry on: answers a second", f"{stream['per_second']:,.0f}"),
        ("the same with 32 streams: time of the slowest of 100", f"{stream['p99_ms']:.0f} ms"),
        ("calls of one message, 100 groups: answers a second", f"{once['per_second']:,.0f}"),
        *(
            (f"streams of {int(groups):,} groups: answers a second", f"{per_second:,.0f}")
            for groups, per_second in figures["groups"].items()
        ),
        (
            f"calls of one message, with {figures['profiles']:,} profiles stored over with 10",
            f"{figures['profiles_ratio']:.2f}",
        ),
        ("an open stream of 100 groups", f"{figures['bytes_per_stream'] / 1024:.0f} KiB"),
        (
            "a profile of 50 groups x 40 points in the service's memory",
            f"{figures['bytes_per_cached_profile'] / 1024:.0f} KiB",
        ),
        (
            "a measurement of 100 groups with its answer in Redis",
            f"{stream['redis_bytes_per_measurement'] / 1024:.1f} KiB",
        ),
        (
            "a small profile (4 groups x 10 points, an alias) in Redis",
            f"{figures['redis_bytes_per_profile'] / 1024:.1f} KiB",
        ),
        ("start to first answer", f"{figures['start_s']:.1f} s"),
        ("`import fslr`", f"{figures['import_s']:.2f} s"),
    ]
    if figures["workers_2_ratio"] is not None:
        rows.append(("two processes over one", f"{figures['workers_2_ratio']:.2f}"))
    return _markdown(("one process", "figure"), rows)


def _beside(figures: dict[str, Any]) -> str:
    rows = []
    for kind, words in (("stream", "streams"), ("once", "calls of one message")):
        found = figures[kind]
        for name, measure in (("throughput", "answers a second"), ("p99", "slowest of 100")):
            low, high = found[f"{name}_spread"]
            ratio = f"{found[f'{name}_ratio']:.2f} ({low:.2f} to {high:.2f})"
            rows.append((f"{words}: {measure}, over the empty server's", ratio))
    rows += [
        (f"answers a second over those of {words}", f"{figures['peers'][name]:,.0f}")
        for name, words in (
            ("optuna", "Optuna's gRPC storage proxy"),
            ("vizier", "OSS Vizier's service"),
        )
        if figures["peers"][name] is not None
    ]
    return _markdown(("beside others", "ratio"), rows)


def _demo(figures: dict[str, Any]) -> str:
    base, big = figures["base_width"], figures["width"]
    return _markdown(
        ("", "validation loss, nats a character"),
        (
            (
                f"base, width {base}, where the learning rate was tuned",
                f"{figures['base_loss']:.3f}",
            ),
            (f"width {big}, plain", f"{figures['plain_loss']:.3f}"),
            (f"width {big}, **advised**", f"**{figures['advised_loss']:.3f}**"),
        ),
    )


def _transfer(figures: dict[str, Any]) -> str:
    cases = figures["cases"]

    def within(model: str) -> str:
        return f"{sum(within_an_octave(case, model) for case in cases)} of {len(cases)}"

    def regret(model: str) -> str:
        losses = [
            math.inf if c[f"loss_{model}"] is None else c[f"loss_{model}"] - c["loss_best_plain"]
            for c in cases
        ]
        return f"{statistics.median(losses):+.3f}"

    return _markdown(
        ("the base's best learning rate, on the scaled model", "plain", "advised"),
        (
            ("lies within an octave of the model's own best", within("plain"), within("advised")),
            (
                "median training loss, over the best of a full search, nats",
                regret("plain"),
                regret("advised"),
            ),
        ),
    )


def _defaults(figures: dict[str, Any]) -> str:
    fields = {question.name: question.field for question in questions()}
    rows = []
    for each in figures["ablations"]:
        by_name = {row["setting"]: row for row in each["rows"]}
        others = [
            f"{name}: {regret_of(row)}" for name, row in by_name.items() if name != each["default"]
        ]
        rows.append((
            each["question"],
            fields.get(each["name"]) or "-",
            f"{each['default']}: {regret_of(by_name[each['default']])}",
            "; ".join(others),
            each["text"],
        ))
    heads = ("question", "set by", "default: its regret, nats", "others", "what follows")
    return _markdown(heads, rows)


_TABLES: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "demo": (("demo.json",), _demo),
    "transfer": (("transfer.json",), _transfer),
    "defaults": (("ablations.json",), _defaults),
    "summary": (("estimator.json", "overhead.json"), _summary),
    "estimator": (("estimator.json",), _estimator),
    "overhead": (("overhead.json",), _overhead),
    "measuring": (("scaling.json",), _measuring),
    "registry": (("registry.json",), _registry),
    "sizing": (("rpc.json",), _sizing),
    "beside": (("rpc.json",), _beside),
    "stepping": (("scaling.json",), _stepping),
}


def table_of(name: str, folder: Path = FIGURES) -> str:
    """Return one table.

    Args:
        name: Which.
        folder: Where the figures are.
    """
    files, render = _TABLES[name]
    return render(*(json.loads((folder / file).read_text("utf-8")) for file in files))


def with_figures(text: str, folder: Path = FIGURES) -> str:
    """Return a page with its tables made anew from the stored figures.

    A table stands between ``<!-- figures: NAME -->`` and ``<!-- end -->``.

    Args:
        text: The page.
        folder: Where the figures are.
    """

    def table(found: re.Match[str]) -> str:
        return f"<!-- figures: {found[1]} -->\n{table_of(found[1], folder)}\n<!-- end -->"

    return re.sub(r"<!-- figures: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)
