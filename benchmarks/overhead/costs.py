"""What a procedure adds to a training, from the times of its steps and of a plain training's."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.overhead.procedures import INTERVAL_STEPS
from benchmarks.overhead.trainings import Training
from fslr.torch import Attachment

_RESAMPLES = 2_000  # of the differences, for the interval of their median


@dataclass(frozen=True, slots=True)
class Stepping:
    """What a procedure adds to each step, measured or not.

    Only the optimizer's step is compared. In the rest of an unmeasured step one hook notes the call
    of the model, which takes microseconds, and its time varies by more than all that is added.

    Attributes:
        stepping_overhead: The number of steps times the median difference of the optimizer's step
            from the plain training's same step, in unmeasured steps, relative to the time of the
            plain training.
        stepping_ms: The median difference.
        stepping_ms_low: Lower end of the median's 95% interval.
        stepping_ms_high: Upper end.
    """

    stepping_overhead: float
    stepping_ms: float
    stepping_ms_low: float
    stepping_ms_high: float


@dataclass(frozen=True, slots=True)
class Cost(Stepping):
    """What a procedure adds to a training.

    Attributes:
        overhead: Added time, relative to the time of the plain training: what hooks and split
            groups add to each step, and ``measuring_overhead``.
        measuring_overhead: What the measurements add beyond that, in the measured steps.
        counted_overhead: What the client's budget counts as measuring, relative to the same time;
            None for procedures without a budget.
        extra_memory_ratio: Added peak memory of tensors, relative to the bytes of the parameters.
        relative_error: Relative error of a unit rate as reported, mean over groups, and over the
            measurements of the last half of its steps.
        measurements: Number of measurements in all steps.
        step_ratio: Time of a measured step, relative to the plain training's same step; median.
    """

    overhead: float
    measuring_overhead: float
    counted_overhead: float | None
    extra_memory_ratio: float
    relative_error: float
    measurements: int
    step_ratio: float


def cost_of(training: Training, plain: Training, extra_memory_ratio: float) -> Cost:
    """Return what a procedure adds to the whole training, of which it may have taken a part.

    Args:
        training: The training with the procedure.
        plain: The training without one.
        extra_memory_ratio: As in :class:`Cost`.

    Raises:
        RuntimeError: The procedure measured nothing in the last half of its steps.
    """
    found = [(step, each) for step, each in enumerate(training.estimates) if each is not None]
    late = [each for step, each in found if step >= len(training.steps) // 2]
    if not late:
        raise RuntimeError("a procedure measured nothing in the last half of its steps")
    at = {step for step, _ in found}
    differences = differences_from(training.seconds, plain.seconds, training.steps)
    updating = differences_from(training.updating_seconds, plain.updating_seconds, training.steps)
    unmeasured = [each for step, each in enumerate(updating) if step not in at]
    steps, seconds = len(plain.steps), sum(plain.seconds)
    stepping = stepping_of(unmeasured, seconds, steps)
    added = [differences[step] - stepping.stepping_ms / 1e3 for step in at]
    # Those of the steps in which it takes no part are as far apart as the last ones.
    count = len(at) + (steps - len(training.steps)) // INTERVAL_STEPS
    measuring = count * statistics.fmean(added) / seconds
    counted = training.stopwatch.measuring_seconds / seconds
    return Cost(
        **asdict(stepping),
        overhead=measuring + stepping.stepping_overhead,
        measuring_overhead=measuring,
        counted_overhead=counted if isinstance(training.observer, Attachment) else None,
        extra_memory_ratio=extra_memory_ratio,
        relative_error=statistics.fmean(
            statistics.fmean(estimate.relative_errors) for estimate in late
        ),
        measurements=count,
        step_ratio=statistics.median(training.seconds[step] / plain.seconds[step] for step in at),
    )


def stepping_of(differences: list[float], plain_seconds: float, steps: int) -> Stepping:
    """Return what is added to each step.

    Args:
        differences: Those of unmeasured steps, in seconds.
        plain_seconds: Time of the plain training.
        steps: Its number of steps.
    """
    resamples = np.random.default_rng(0).choice(differences, (_RESAMPLES, len(differences)))
    low, high = np.quantile(np.median(resamples, axis=1), (0.025, 0.975))
    usual = statistics.median(differences)
    return Stepping(
        stepping_overhead=steps * usual / plain_seconds,
        stepping_ms=1e3 * usual,
        stepping_ms_low=1e3 * float(low),
        stepping_ms_high=1e3 * float(high),
    )


def differences_from(mine: list[float], plain: list[float], steps: range) -> list[float]:
    """Return how much longer each step took than the plain training's same step, in seconds.

    Args:
        mine: Times of the steps that the training takes part in.
        plain: Times of all steps.
        steps: The steps that it takes part in.
    """
    others = plain[steps.start : steps.stop]
    return [one - other for one, other in zip(mine, others, strict=True)]
