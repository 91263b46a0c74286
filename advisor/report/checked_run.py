"""A run as the checks see it: a sample of its measurements, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from advisor.policy import Layout
from advisor.policy.arrays import Floats
from advisor.report.words import short_name
from advisor.wire import layout_from_proto
from fslr.advisor.v1 import policy_pb2, run_service_pb2

MAX_MEASUREMENTS = 200
"""More measurements of a run are thinned out to this many, so that large models fit in memory."""


@dataclass(slots=True)
class EventSample:
    """A regular sample of a run's history, of which few events are kept at any time.

    Attributes:
        run: The run, with its layout.
        events: The sample, oldest first.
    """

    run: run_service_pb2.Run
    events: list[run_service_pb2.RunEvent] = field(default_factory=list)
    _seen: int = 0
    _every: int = 1

    def add(self, event: run_service_pb2.RunEvent) -> None:
        """Add the next event of the history; those of an earlier layout are left out."""
        if len(event.measurement.unit_rates) != len(self.run.opening.layout.groups):
            return
        if self._seen % self._every == 0:
            self.events.append(event)
        self._seen += 1
        if len(self.events) > MAX_MEASUREMENTS:
            self.events, self._every = self.events[::2], 2 * self._every


@dataclass(frozen=True, slots=True, eq=False)
class CheckedRun:
    """A run's measurements as arrays of shape [measurements, groups]; None: not reported.

    Attributes:
        name: The run's short name.
        layout: Its layout, with roles.
        total_steps: Planned number of steps; 0: unknown.
        steps: The measured steps, of shape [measurements].
        unit_rates: Unit rates, in output units per learning rate.
        multipliers: The multipliers in force.
        references: Unit rates of the profile at these steps; 0: no matching group.
        learning_rates: Scheduled learning rates.
        shares: Signed parts of the squared total rate.
        weight_rms: RMS of the weights.
        update_rms: RMS of the update of a step with learning rate 1.
        weight_decays: Part of the weights that a scheduled step takes away as weight decay.
        keeps_decay: Whether multipliers leave the decay alone.
    """

    name: str
    layout: Layout
    total_steps: int
    steps: Floats
    unit_rates: Floats
    multipliers: Floats
    references: Floats
    learning_rates: Floats | None
    shares: Floats | None
    weight_rms: Floats | None
    update_rms: Floats | None
    weight_decays: Floats | None
    keeps_decay: bool

    @classmethod
    def of(cls, run: run_service_pb2.Run, events: Iterable[run_service_pb2.RunEvent]) -> CheckedRun:
        """Return a run with a sample of its measurements.

        Args:
            run: The run, with its layout.
            events: Its history, oldest first; events of an earlier layout are left out.

        Raises:
            InvalidValueError: The layout is not valid.
        """
        sample = EventSample(run)
        for event in events:
            sample.add(event)
        return cls.of_sample(sample)

    @classmethod
    def of_sample(cls, found: EventSample) -> CheckedRun:
        """Return a run from a sample of its history.

        Args:
            found: The sample.

        Raises:
            InvalidValueError: The run's layout is not valid.
        """
        run, sample = found.run, found.events
        layout = layout_from_proto(run.opening.layout)
        groups = len(layout)
        measured = [event.measurement for event in sample]
        ones = np.ones((len(sample), groups))

        def array(rows: Sequence[Sequence[float]]) -> Floats | None:
            """Return the rows as an array; None if a row is absent."""
            if not rows or any(len(row) != groups for row in rows):
                return None
            return np.array(rows, np.float64)

        multipliers = array([m.multipliers for m in measured])
        references = array([e.recommendation.reference_unit_rates for e in sample])
        return cls(
            name=short_name(run.name),
            layout=layout,
            total_steps=run.opening.total_steps,
            steps=np.array([m.step for m in measured], np.float64),
            unit_rates=np.array([m.unit_rates for m in measured], np.float64).reshape(-1, groups),
            multipliers=ones if multipliers is None else multipliers,
            references=0 * ones if references is None else references,
            learning_rates=array([m.learning_rates for m in measured]),
            shares=array([m.shares for m in measured]),
            weight_rms=array([m.weight_rms for m in measured]),
            update_rms=array([m.update_rms for m in measured]),
            weight_decays=array([m.weight_decays for m in measured]),
            keeps_decay=any(
                e.recommendation.weight_decay == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
                for e in sample[-1:]
            ),
        )

    @property
    def roles(self) -> dict[str, list[int]]:
        """The positions of the groups of each role."""
        found: dict[str, list[int]] = {}
        for position, group in enumerate(self.layout.groups):
            found.setdefault(group.role, []).append(position)
        return found
