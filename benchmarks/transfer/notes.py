"""Notes on single cases of the transfer benchmark: why they miss the aim, and how sure that is.

The figures in a note are computed from the case's own record.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_Case = Mapping[str, Any]

_LARGER_BATCH = (
    "A step of the scaled model sees more characters, so its gradients are less noisy and larger "
    "steps pay off (see Noise of gradients). Matching keeps the outputs' change at the size that "
    "was right for the base's noise. Raising it by the square root of the number of characters per "
    "step does not help: it does worse in four other cases of this kind (see Beyond the paper)."
)


def note_on(case: _Case) -> str | None:
    """Return the note on a case, or None if there is none.

    Notes are on cases with several seeds; a quick run has none.

    Args:
        case: The case's record.
    """
    note = NOTES.get((case["axis"], case["model"], case["optimizer"]))
    return None if note is None or len(case["seeds"]) < 2 else note(case)


def _narrow_optimum(case: _Case) -> str:
    base, plain, advised = (_mean_losses(case, model) for model in ("base", "plain", "advised"))
    shifts = case["spread"]["shift_advised"]
    return (
        "The base's losses at its best learning rate and at one and two octaves below are within "
        f"{_range([base[0], base[-1], base[-2]])} nats, so its best learning rate is hardly "
        f"determined: taken alone, {shifts.count(-1)} of {len(shifts)} seeds show a shift of -1. "
        "The base is too narrow: one that is twice as wide has a lower best learning rate, and the "
        "shift from there is within an octave (see Wider bases). Two octaves below "
        f"the base's best learning rate, the advised loss is {advised[-2]:.3f}; the best of the "
        f"plain sweep is {min(plain.values()):.3f}."
    )


def _noisy_optimum(case: _Case) -> str:
    base, advised = (_mean_losses(case, model) for model in ("base", "advised"))
    return (
        "The base's losses at its best learning rate and at two octaves below are within "
        f"{_range([base[0], base[-2]])} nats, while the advised model's regret has a standard "
        f"deviation of {case['spread']['regret']:.3f} over seeds. An octave below the base's best "
        f"learning rate, the advised model's loss is {advised[-1] - min(advised.values()):.3f} "
        "nats higher than at its own best one."
    )


def _larger_batch(case: _Case) -> str:
    base = _mean_losses(case, "base")
    first, second = sorted(base.values())[:2]
    octave = next(octave for octave, loss in base.items() if loss == second)
    return (
        f"{_LARGER_BATCH} The losses at the base's two best learning rates are within "
        f"{_range([first, second])} nats; counted from the second one, the shift is "
        f"{case['shift_advised'] - octave:+d}."
    )


def _longer_sequences_in_long_training(_case: _Case) -> str:
    return f"{_LARGER_BATCH} Noise explains a part of this shift only; the rest is not explained."


NOTES: dict[tuple[str, str, str], Callable[[_Case], str]] = {
    ("width", "char_gpt_post_mod", "Adam"): _narrow_optimum,
    ("width", "conv_net", "SGD"): _noisy_optimum,
    ("sequence_length", "char_gpt_pre", "Adam"): _larger_batch,
    ("sequence_length", "char_gpt_pre", "AdamW"): _longer_sequences_in_long_training,
    ("batch_size", "char_gpt_pre", "Adam"): _larger_batch,
}


def _mean_losses(case: _Case, model: str) -> dict[int, float]:
    """Return mean losses over seeds, by octaves from the base's best learning rate."""
    best = math.log2(case["base_learning_rate"])
    return {
        round(math.log2(float(learning_rate)) - best): statistics.fmean(losses)
        for learning_rate, losses in case["sweeps"][model].items()
        if None not in losses
    }


def _range(losses: Sequence[float]) -> str:
    """Return the range of losses, rounded up to thousandths."""
    return f"{math.ceil(1000 * (max(losses) - min(losses))) / 1000:.3f}"
