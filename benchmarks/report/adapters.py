"""The table of the study of adapters."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.markdown import table


def adapters(figures: dict[str, Any]) -> str:
    """Return what separate and joint multipliers of LoRA's factors lead to."""
    rows = figures["adapters"]
    small, large = figures["ranks"]
    lines = table(
        (
            "alpha / rank",
            "learning rate",
            f"rank {small}",
            f"rank {large}, plain",
            "separate multipliers",
            "joint multiplier",
            "joint - separate",
        ),
        (
            (
                row["scale"],
                f"2^{row['octave']}",
                *(f"{row[name]:.3f}" for name in ("base", "plain", "separate", "joint")),
                f"{row['change']:+.3f} ± {2 * row['error']:.3f}",
            )
            for row in rows
        ),
    )
    means = {
        name: statistics.fmean(
            min(row[name] for row in rows if row["scale"] == scale)
            for scale in {row["scale"] for row in rows}
        )
        for name in ("separate", "joint")
    }
    return (
        f"A character model with adapters of rank {small} is recorded, and one of rank {large} "
        f"trains with that profile. Losses are in nats, over {figures['seeds']} seeds; differences "
        f"have two standard errors.\n\n{lines}\n\n"
        f"At the best of these learning rates the mean loss is {means['separate']:.3f} with "
        f"separate multipliers and {means['joint']:.3f} with a joint one."
    )
