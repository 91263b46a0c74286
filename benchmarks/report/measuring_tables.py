"""Tables of what measuring yields and costs, rendered from the stored figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import table


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
    """Return what measuring adds to a training, and how far apart two plain trainings are."""
    rows = [
        (
            {"ours": "ours, every 100 steps", "paper": "the paper's"}[name],
            f"{figures[name]['overhead']:+.1%}",
            *(_percent(figures[name].get(part)) for part in _PARTS_OF_OVERHEAD),
            f"{figures[name]['extra_memory_ratio']:+.2f}",
            f"{figures[name]['relative_error']:.2f}",
            str(figures[name]["measurements"]),
        )
        for name in ("ours", "paper")
    ]
    control = figures.get("control")  # older figures have none
    if control is not None:
        added = control["stepping_overhead"]
        rows.append(("none, a second time", f"{added:+.1%}", "", _percent(added), "", "", ""))
    shown = table(
        (
            "procedure",
            "added time",
            *_PARTS_OF_OVERHEAD.values(),
            "added memory, relative to the parameters",
            "relative error",
            "measurements",
        ),
        rows,
    )
    text = (
        f"Character GPT, {figures['parameters']:,} parameters, {figures['steps']} steps, "
        f"{figures['device']}:\n\n{shown}"
    )
    return text if control is None else f"{text}\n\n{_noise(figures['ours'], control)}"


def _noise(ours: dict[str, Any], control: dict[str, Any]) -> str:
    """Return how what is added to each step compares with the noise of the comparison."""
    added, noise = (
        f"{found['stepping_ms']:+.2f} ms (95% interval {found['stepping_ms_low']:+.2f} to "
        f"{found['stepping_ms_high']:+.2f})"
        for found in (ours, control)
    )
    return (
        f"The median step of ours takes {added} more than the plain one, and that of a second "
        f"plain training {noise}. The latter is the noise of the comparison. The client's budget "
        f"counts {ours['counted_overhead']:.2%} as measuring."
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


_FEW_STEPS = 4  # of a training; architectures on which a first measurement takes more are named


def _slow_first_measurements(architectures: dict[str, Any]) -> str:
    """Return which first measurements take long, and why."""
    above = {name: cost for name, cost in architectures.items() if cost["first"] > _FEW_STEPS}
    text = (
        f"The first measurement takes at most {_FEW_STEPS} training steps on "
        f"{len(architectures) - len(above)} of {len(architectures)} architectures."
    )
    slow = [name for name, cost in above.items() if cost["slow"]]
    quick = [name for name, cost in above.items() if not cost["slow"]]
    if slow:
        text += (
            f" It takes more on {_listed(slow)}, because groups on the slow route need several "
            "chunks or probes."
        )
    if quick:
        text += (
            f" It takes more on {_listed(quick)}, because the checks call the model several times, "
            "and calls on a few examples take nearly as long as on many."
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
