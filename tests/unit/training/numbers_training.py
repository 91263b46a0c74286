"""A training without a framework; each group has one number as its weight and its rate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fslr import MeasurementError, RateEstimate
from fslr.training.advised_run import AdvisedRun
from fslr.training.cycle_parts import Run
from fslr.training.events import Listeners
from fslr.training.measurement_size import MeasurementSize
from fslr.training.step_cycle import StepCycle
from tests.waiting import eventually


class NumbersMeter:
    """Measures that each group's output moves by a given amount per learning rate.

    As in a real meter, the unit rates are computed from how far the weights moved.
    """

    def __init__(self, training: NumbersTraining) -> None:
        self.training = training
        self.size = MeasurementSize(1)
        self.all_examples = 4
        self.fails = False
        self.cannot_begin = False
        self.failure: Exception | None = None
        self.before: NDArray[np.float64] | None = None

    def wait(self) -> None:
        pass

    def begin_step(self) -> None:
        if self.cannot_begin:
            raise MemoryError("no room for the weights")
        self.before = self.training.weights.copy()

    @property
    def excludes_decay(self) -> bool:
        return False

    def end_step(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> RateEstimate:
        if self.failure is not None:
            raise self.failure
        if self.fails or self.before is None:
            raise MeasurementError("out of luck")
        step = self.training.weights - self.before + np.array(uncounted_decays) * self.before
        moved = np.abs(step) / np.array(learning_rates)
        most, repeats = self.size.part(self.all_examples)
        examples, probes = min(most or self.all_examples, self.all_examples), self.size.probes
        self.size.used(examples, probes * repeats, repeats)
        return RateEstimate(
            unit_rates=(moved * self.training.sensitivities).tolist(),
            relative_errors=[0.01] * len(moved),
            probes=probes * repeats,
            examples=examples,
        )

    def rescale_step(self, factors: Sequence[float], decays: Sequence[float]) -> None:
        if self.before is None:
            raise MeasurementError("the weights before are not known")
        decay = np.array(decays) * self.before
        moved = self.training.weights - self.before + decay
        self.training.weights = self.before + moved * np.array(factors) - decay

    def fail_step(self, error: Exception) -> None:
        self.failure = error

    def forget_step(self) -> None:
        self.before = None
        self.failure = None


class NumbersScaler:
    """An optimizer's learning rates, one for each group."""

    def __init__(self, training: NumbersTraining) -> None:
        self.training = training
        self.fails = False
        self.by_update = False
        self.keeps_weights = False

    def begin_step(self) -> None:
        pass

    def learning_rates(self) -> list[float]:
        return [self.training.learning_rate] * len(self.training.weights)

    def step_learning_rates(self) -> list[float]:
        return self.learning_rates()

    def decays(self) -> list[float]:
        return [self.training.learning_rate * self.training.decay] * len(self.training.weights)

    def kept_decays(self) -> list[float]:
        return self.decays()

    def check(self, multipliers: Sequence[float]) -> None:
        pass

    def update_factors(
        self,
        multipliers: Sequence[float],
        members: Collection[int] | None = None,  # noqa: ARG002
    ) -> list[float]:
        return list(multipliers) if self.by_update else [1.0] * len(multipliers)

    @property
    def can_correct(self) -> bool:
        return not self.keeps_weights

    def is_scaled(self, multipliers: Sequence[float], *, keeps_decay: bool) -> bool:  # noqa: ARG002
        return False

    def scale(
        self, multipliers: Sequence[float], *, keeps_decay: bool, everything: bool = False
    ) -> None:
        if self.fails:
            raise ValueError("out of luck")
        factors = [1.0] * len(multipliers) if self.by_update and not everything else multipliers
        self.training.factors = np.array(factors)
        self.training.keeps_decay = keeps_decay

    def restore(self) -> None:
        self.training.factors = np.ones(len(self.training.weights))


class NumbersTraining:
    """Steps each weight by its learning rate, with decoupled weight decay.

    Args:
        sensitivities: How far each group's output moves when its weight moves by one.
        schedule: The learning rate of each step.
        decay: The weight decay.
    """

    def __init__(
        self,
        sensitivities: Sequence[float],
        schedule: Callable[[int], float] = lambda _step: 0.01,
        decay: float = 0.0,
    ) -> None:
        self.sensitivities = np.array(sensitivities, dtype=float)
        self.weights = np.zeros(len(sensitivities))
        self.factors = np.ones(len(sensitivities))
        self.decay = decay
        self.keeps_decay = False
        self.schedule = schedule
        self.learning_rate = schedule(0)
        self.meter = NumbersMeter(self)
        self.scaler = NumbersScaler(self)
        self.moves: list[NDArray[np.float64]] = []

    def train(
        self, run: Run, steps: int, *, waits: bool = True, scales_updates: bool = False
    ) -> None:
        """Train for some steps.

        Args:
            run: What the steps are reported to.
            steps: The number of steps.
            waits: Whether each answer of the advisor arrives before the next step.
            scales_updates: Whether multipliers act on the updates.
        """
        self.scaler.by_update = scales_updates
        cycle = StepCycle(run, self.meter, self.scaler, listeners=Listeners([]))
        for _ in range(steps):
            self.learning_rate = self.schedule(run.cadence.step)
            before = self.weights.copy()
            cycle.before_step()
            decayed = 1.0 if self.keeps_decay else self.factors
            self.weights = self.weights + self.learning_rate * (
                self.factors - self.decay * decayed * self.weights
            )
            cycle.after_step()
            self.moves.append((self.weights - before) * self.sensitivities)
            if waits and isinstance(run, AdvisedRun):
                await_answer(run)


def await_answer(run: AdvisedRun) -> None:
    """Wait until no measurement of a run is under way."""
    background = run._exchange._background
    assert background is not None
    eventually(lambda: not background.outstanding)
