"""The sentences with figures in the pages, rendered from the stored figures."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import number
from benchmarks.report.methods import SPOKEN
from benchmarks.transfer.methods import STANDARD


def demo_setup(demo: dict[str, Any]) -> str:
    """Return what the demo trains."""
    gpt2 = demo["gpt2"]
    return (
        f"The demo tunes the learning rate of a character GPT of width {demo['base_width']} and "
        f"uses it unchanged at width {demo['width']} ({_times(demo)} times wider, {demo['steps']} "
        "steps of Adam, text of the Python standard library). It does the same with the training "
        f"setup of GPT-2 (width {gpt2['base_width']}, and {_times(gpt2)} times wider, "
        f"{gpt2['steps']} steps of AdamW: small initial weights, a tied head, warm-up and cosine, "
        "weight decay, clipping). The losses at the end:"
    )


def _times(found: dict[str, Any]) -> int:
    times: int = found["width"] // found["base_width"]
    return times


def demo_outcome(demo: dict[str, Any]) -> str:
    """Return what the demo's advised run gained, and by which multipliers."""
    return (
        f"With Adam, the advised run ends {_outcome(demo)}. With GPT-2's setup, it ends "
        f"{_outcome(demo['gpt2'])}. With Adam, multipliers between "
        f"{demo['multiplier_min']:.2g} and {demo['multiplier_max']:.2g} make each layer's step "
        "move the outputs as far as in the base."
    )


def _outcome(found: dict[str, Any]) -> str:
    """Return how far the advised run ends from the plain ones."""
    return (
        f"{_apart(found, 'plain')} the plain one at the same learning rate, and "
        f"{_apart(found, 'best_plain')} the plain one at its own best learning rate"
    )


def _apart(found: dict[str, Any], other: str) -> str:
    return _signed(found["advised_loss"] - found[f"{other}_loss"], ".2f")


def _signed(difference: float | None, form: str) -> str:
    """Return a difference of losses in words, such as ``0.01 nats below``; None if one diverged."""
    if difference is None:
        return "infinitely far above"
    return f"{abs(difference):{form}} nats {'above' if difference > 0 else 'below'}"


def practice(figures: dict[str, Any]) -> str:
    """Return how advice does on common training setups."""
    rows, harmed = figures["rows"], figures["harmed"]
    return (
        f"On {len(rows)} common training setups of small GPTs, trainings advised by measurements "
        f"alone end a median of {_signed(figures['median_regret'], '.3f')} the plain model at its "
        f"own best learning rate, and {_signed(figures['worst_regret'], '.3f')} it in the worst "
        "setup. "
        f"{harmed or 'None'} of them {'ends' if harmed < 2 else 'end'} above the base, or above "
        "the plain model at the same learning rate, by more than noise."
    )


def larger_case(figures: dict[str, Any]) -> str:
    """Return what the methods do to the larger case, at the base's best learning rate."""
    by_method = {case["method"]: case for case in figures["cases"]}
    standard = by_method.pop(STANDARD)
    spoken = {**SPOKEN, "measured": "measured multipliers"}
    others = [
        f"with {spoken[method]}, it ends {_signed(case['octaves']['regret'], '.2f')} that"
        for method, case in by_method.items()
    ]
    return (
        "A larger case was run with one seed: a GPT of 27 million parameters on byte-pair tokens, "
        f"from a base of 0.5 million, {standard['steps']} steps of AdamW with weight decay, "
        "learning rates in whole octaves. At the base's best one, the plain model ends "
        f"{_signed(standard['octaves']['regret'], '.2f')} the best of its full search; "
        f"{'; '.join(others)}."
    )


def measuring_cost(overhead: dict[str, Any]) -> str:
    """Return what measuring adds to a training, with the default policy."""
    ours = overhead["ours"]
    return (
        f"With the default policy, measuring {ours['measurements']} times in {overhead['steps']} "
        f"steps of a model with {overhead['parameters'] / 1e6:.1f} million parameters adds "
        f"{number(ours['overhead'], '.1%')} to the time of a training, scaled learning rates "
        "included."
    )


def summary_source(estimator: dict[str, Any]) -> str:
    """Return where the summary of the estimators comes from."""
    return (
        "Measured with `python -m benchmarks estimator` and `python -m benchmarks overhead` on "
        f"{estimator['machine']['cores']} cores of a CPU. The bias of the worst tensor includes "
        f"the noise of {estimator['measurements']} probes."
    )


def measuring_machine(estimator: dict[str, Any]) -> str:
    """Return the machine on which the figures about measuring were taken."""
    machine = estimator["machine"]
    torch, _, _ = estimator["versions"]["torch"].partition("+")
    where = machine["accelerator"] or f"{machine['cores']} cores of a CPU"
    return (
        f"The figures below were measured with PyTorch {'.'.join(torch.split('.')[:2])} on {where}."
    )


def estimator_columns(estimator: dict[str, Any]) -> str:
    """Return what the columns of the estimators' table mean."""
    count = estimator["measurements"]
    return (
        f"Each estimator measured {count} times with one probe. `RMSE` is the error of a rate from "
        "one probe, relative to the exact rate, averaged over groups. `bias` is the mean of "
        f"`|log|` of the ratio between the rate from all {count} probes and the exact rate. "
        "`noise` is the bias that an unbiased estimator of this spread would show. Times are per "
        "probe, relative to `kronecker` with one probe; they are medians of paired runs."
    )


def stepping_cost(scaling: dict[str, Any]) -> str:
    """Return what scaled learning rates cost in an optimizer step of 200 tensors."""
    rows = [row for row in scaling["stepping"] if row["groups"] == 200]
    rounded = [row["rounded_ratio"] for row in rows]
    regrouped = [row["regrouped_ratio"] for row in rows]
    different = [row["split_ms"] / row["plain_ms"] for row in rows]
    return (
        f"A step of 200 tensors takes {min(rounded):.1f} to {max(rounded):.1f} times as long with "
        "the rounded multipliers of the default policy as without multipliers. The optimizer "
        f"itself takes {min(regrouped):.1f} to {max(regrouped):.1f} times as long if the same "
        "groups are made by hand. If all multipliers differ, a step takes "
        f"{min(different):.1f} to {max(different):.1f} times as long."
    )


def sizing_source(rpc: dict[str, Any]) -> str:
    """Return where the figures of one service process come from."""
    return (
        f"Measured with `python -m benchmarks rpc --json` on {rpc['cores']} cores that the "
        "service, Redis and the load generator share. One process reaches more if Redis and the "
        "callers have their own cores, and less if other processes use the cores."
    )


def registry_source(registry: dict[str, Any]) -> str:
    """Return where the figures of the registry come from."""
    return (
        "Measured with `python -m benchmarks registry --json`: median times in paired rounds "
        f"against two Redis servers, one with 10 profiles and one with {registry['profiles']:,}."
    )
