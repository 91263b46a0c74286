"""The figures of the practice benchmark: regrets, and which setups are harmed by advice."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.practice.battery import RowTrainings
from benchmarks.transfer.figures import Losses, at_edge, best_octave, mean_loss

NOISE_FLOOR = 0.01  # nats

Record = dict[str, Any]


def noise(differences: Sequence[float]) -> float:
    """Return what a mean difference of paired losses has to exceed to count, in nats.

    Args:
        differences: The difference of each seed, in nats.

    Returns:
        Two standard errors of the mean, and at least :data:`NOISE_FLOOR`; that with one seed.
    """
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return NOISE_FLOOR
    return max(NOISE_FLOOR, 2 * statistics.stdev(differences) / math.sqrt(len(differences)))


def is_above(losses: Sequence[float], reference: Sequence[float]) -> bool:
    """Return whether losses are above others by more than noise.

    A training that diverged is above one that did not.

    Args:
        losses: The loss of each seed.
        reference: The loss of each seed that it is compared with.
    """
    if not all(map(math.isfinite, losses)):
        return all(map(math.isfinite, reference))
    if not all(map(math.isfinite, reference)):
        return False
    differences = _differences(losses, reference)
    return statistics.fmean(differences) > noise(differences)


def record(row: RowTrainings) -> Record:
    """Return the record of a setup.

    Args:
        row: Its trainings.
    """
    setup = row.setup
    base, plain = row.base[row.octave], row.plain[row.octave]
    advised = [each.loss for each in row.advised]
    best = best_octave(row.plain)
    best_plain = [math.inf] * len(row.seeds) if best is None else row.plain[best]
    regrets = _differences(advised, best_plain)
    multipliers = [each for trained in row.advised for _step, each in trained.multipliers]
    return {
        "recipe": setup.name,
        "seeds": list(row.seeds),
        "base": _finite(mean_loss(base)),
        "plain_same_lr": _finite(mean_loss(plain)),
        "best_plain": _finite(mean_loss(best_plain)),
        "advised": _finite(mean_loss(advised)),
        "regret": _finite(statistics.fmean(regrets)),
        "worst_seed": _finite(max(regrets)),
        "max_multiplier": max(map(max, multipliers), default=1.0),
        "min_multiplier": min(map(min, multipliers), default=1.0),
        "harmed": is_above(advised, plain) or is_above(advised, base),
        "noise": {
            "regret": noise(regrets),
            "to_plain_same_lr": noise(_differences(advised, plain)),
            "to_base": noise(_differences(advised, base)),
        },
        "learning_rate": 2.0**row.octave,
        "best_plain_learning_rate": None if best is None else 2.0**best,
        "at_edge": [
            name for name, sweep in (("base", row.base), ("plain", row.plain)) if at_edge(sweep)
        ],
        "losses": {
            "base": _by_learning_rate(row.base),
            "plain": _by_learning_rate(row.plain),
            "advised": [_finite(loss) for loss in advised],
        },
        "failures": sum(each.failures for each in row.advised),
        "seconds": row.seconds,
        "definition": {key: value for key, value in asdict(setup).items() if key != "name"},
    }


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """Return the figures over all setups.

    Args:
        records: The records; a regret of None, of an advised training that diverged, is infinite.
    """
    regrets = [math.inf if each["regret"] is None else each["regret"] for each in records]
    return {
        "median_regret": _finite(statistics.median(regrets)) if regrets else None,
        "worst_regret": _finite(max(regrets)) if regrets else None,
        "harmed": sum(each["harmed"] for each in records),
    }


def _differences(losses: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return paired differences; infinite where the first one diverged."""
    return [
        math.inf if math.isinf(loss) else loss - other
        for loss, other in zip(losses, reference, strict=True)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_learning_rate(losses: Losses) -> dict[str, list[float | None]]:
    """Return losses by learning rate, the highest first; None for trainings that diverged."""
    return {
        repr(2.0**octave): [_finite(loss) for loss in losses[octave]]
        for octave in sorted(losses, reverse=True)
    }
