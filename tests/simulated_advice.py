"""Recording, advising and following advice in simulated trainings."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from advisor.policy import (
    DepthRule,
    Layout,
    LayoutMapping,
    Measurement,
    Policy,
    PriorRule,
    Profile,
    Recommendation,
    Reference,
    map_layout,
    priors,
    recommend,
)
from tests.simulated_training import (
    NO_DISTURBANCE,
    Disturbance,
    Floats,
    Schedule,
    SimulatedModel,
    SimulatedTraining,
    Trajectory,
)


@functools.cache
def _mapping(layout: Layout, base: Layout, depth_rule: DepthRule) -> LayoutMapping:
    return map_layout(layout, base, depth_rule)


def record(
    base: Trajectory,
    model: SimulatedModel,
    policy: Policy,
    *,
    every: int = 25,
    disturbance: Disturbance = NO_DISTURBANCE,
) -> Profile:
    """Return the profile of a plain training.

    While a group has the rate 0, the number of steps doubles from one point to the next, as
    :class:`fslr.training.recording.Recording` does.

    Args:
        base: The training, with every step measured.
        model: Its model.
        policy: The rules of runs on the profile.
        every: Steps between recorded points.
        disturbance: What the recorder measures instead of the true rates.
    """
    names = model.names
    steps = _recorded_steps(base, every)
    rates = np.array([
        disturbance.measured(step, names, base.unit_rates[step]) for step in steps.tolist()
    ])
    return Profile(
        layout=model.layout,
        steps=steps,
        unit_rates=rates.astype(np.float32),
        relative_errors=np.zeros(rates.shape, dtype=np.float32),
        base_learning_rate=0.01,
        total_steps=len(base.steps),
        policy=policy,
        weight_rms=base.weight_rms[steps].astype(np.float32),
        update_rms=np.ones(rates.shape, dtype=np.float32),
    )


def _recorded_steps(base: Trajectory, every: int) -> NDArray[np.int64]:
    """Return the steps that a recorder measures."""
    steps = [0]
    while True:
        step = steps[-1]
        following = (step // every + 1) * every
        if not base.unit_rates[step].all():
            following = min(following, max(2 * step, 1))
        if following >= len(base.steps):
            return np.array(steps)
        steps.append(following)


class SimulatedAdvisor:
    """Answers the measurements of one run.

    Args:
        profile: The profile, with the rules to follow.
        layout: The run's layout.

    Attributes:
        profile: The profile.
        reference: Reads it.
        mapping: The run's layout mapped onto the profile's.
        priors: The priors of the run's groups.
    """

    def __init__(self, profile: Profile, layout: Layout) -> None:
        self.profile = profile
        self.reference = Reference(profile, smoothing=profile.policy.reference_smoothing)
        self.mapping = _mapping(layout, profile.layout, profile.policy.depth_rule)
        self.priors = priors(layout, profile.layout, self.mapping, optimizer="AdamW")

    def starting_multipliers(self) -> Floats:
        """Return the multipliers before the first measurement."""
        if self.profile.policy.prior is PriorRule.NONE:
            return np.ones(len(self.priors))
        return np.where(self.priors > 0, self.priors, 1.0)

    def answer(self, measurement: Measurement) -> Recommendation:
        """Return the answer to a measurement."""
        return recommend(
            self.profile,
            self.reference,
            self.mapping,
            self.profile.policy,
            measurement,
            priors=self.priors,
        )


@dataclass(slots=True, eq=False)
class SimulatedClient:
    """What a client keeps between steps, as :class:`fslr.training.advised_run.AdvisedRun` does.

    Attributes:
        multipliers: In force.
        advised: Whether each was ever recommended.
        next_step: The next step to measure.
        measured_step: The last one measured, or None.
        waiting: Answers under way, each with the step at which it arrives.
    """

    multipliers: Floats
    advised: NDArray[np.bool_]
    next_step: int = 0
    measured_step: int | None = None
    waiting: list[tuple[int, Recommendation]] = field(default_factory=list)

    def adopt(self, answer: Recommendation, step: int) -> None:
        """Apply an answer."""
        self.multipliers = answer.multipliers
        self.advised = self.advised | np.array([each.is_recommended for each in answer.outcomes])
        # If a later step was measured since, the answer to that one decides.
        if self.measured_step is None or answer.next_measurement_step > self.measured_step:
            self.next_step = max(answer.next_measurement_step, step)

    def adopt_arrived(self, step: int) -> None:
        """Apply the newest answer that has arrived, and drop those before it."""
        arrived = [answer for due, answer in self.waiting if due <= step]
        self.waiting = [(due, answer) for due, answer in self.waiting if due > step]
        if arrived:
            self.adopt(arrived[-1], step)


@dataclass(frozen=True, slots=True, eq=False)
class AdvisedTraining:
    """A training that follows advice.

    Attributes:
        model: The model.
        profile: The profile to follow.
        schedule: Its learning rates.
        total_steps: Number of steps.
        disturbance: What is measured instead of the true rates.
        delays: Steps until the answer to each measurement arrives, repeated as needed; None: it is
            lost. The first answer always arrives at once.
        checkpoint: What the client loads before the first step; None: nothing.
    """

    model: SimulatedModel
    profile: Profile
    schedule: Schedule
    total_steps: int
    disturbance: Disturbance = NO_DISTURBANCE
    delays: tuple[int | None, ...] = (0,)
    checkpoint: SimulatedClient | None = None

    def run(self) -> Trajectory:
        """Train the model."""
        advisor = SimulatedAdvisor(self.profile, self.model.layout)
        training = SimulatedTraining(self.model)
        start = advisor.starting_multipliers()
        client = SimulatedClient(start, np.zeros(len(start), dtype=np.bool_))
        if self.checkpoint is not None:
            client = replace(self.checkpoint, waiting=[])
        rows: list[tuple[int, Floats, Floats, Floats, float]] = []
        measurements: list[Measurement] = []
        answers: list[Recommendation] = []
        for step in range(self.total_steps):
            client.adopt_arrived(step)
            if step >= client.next_step:
                rates, weights = training.unit_rates(), training.weight_rms
                measurement = self._measurement(step, rates, weights, client)
                answer = advisor.answer(measurement)
                self._deliver(client, step, answer, number=len(answers))
                measurements.append(measurement)
                answers.append(answer)
                rows.append((step, rates, client.multipliers, weights, training.stream_rms))
            training.take_step(self.schedule.at(step), client.multipliers)
        steps, true_rates, multipliers, weight_rms, stream_rms = zip(*rows, strict=True)
        return Trajectory(
            np.array(steps),
            np.array(true_rates),
            np.array(multipliers),
            np.array(weight_rms),
            np.array(stream_rms),
            measurements,
            answers,
        )

    def _measurement(
        self, step: int, rates: Floats, weight_rms: Floats, client: SimulatedClient
    ) -> Measurement:
        since = 0 if client.measured_step is None else step - client.measured_step
        return Measurement(
            step=step,
            unit_rates=self.disturbance.measured(step, self.model.names, rates),
            relative_errors=np.full(len(rates), self.disturbance.relative_error),
            multipliers=client.multipliers,
            interval_steps=since,
            total_steps=self.total_steps,
            advised=client.advised,
            weight_rms=weight_rms,
            update_rms=np.ones(len(rates)),
        )

    def _deliver(
        self, client: SimulatedClient, step: int, answer: Recommendation, *, number: int
    ) -> None:
        since = 0 if client.measured_step is None else step - client.measured_step
        client.measured_step = step
        # Until an answer says otherwise; without answers, short intervals grow.
        client.next_step = step + max(since, min(2 * since, 25) or 25)
        delay = 0 if number == 0 else self.delays[number % len(self.delays)]
        if delay == 0:
            client.adopt(answer, step)
        elif delay is not None:
            client.waiting.append((step + delay, answer))
