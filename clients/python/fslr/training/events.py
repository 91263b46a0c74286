"""What happens during a training, as frozen events; a listener is any callable that takes one.

Logs, progress bars and trackers hang on these events. Logging is itself a listener.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_service_pb2
from fslr.errors import AttachError
from fslr.training.estimate import RateEstimate
from fslr.training.summaries import count_of, held_words, range_words, short_name

_log = logging.getLogger("fslr")


class StepPart(enum.Enum):
    """A part of a step that can fail without stopping the training."""

    MEASUREMENT = "measurement"
    SCALING = "scaling"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Started:
    """An advised run starts; no step was taken yet.

    Attributes:
        step: The step, 0. A run that is resumed gets its step and its multipliers afterwards.
        opening: What the run tells the advisor about itself; it contains the layout.
        multipliers: The multiplier that each group starts with.
        mapping: How the layout maps onto the profile. None on a rank that does not talk to the
            advisor, and if there is no answer.
    """

    step: int
    opening: pb.RunOpening
    multipliers: tuple[float, ...]
    mapping: profile_service_pb2.ValidateLayoutResponse | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A step was measured.

    Attributes:
        step: The step, counted from 0.
        estimate: The unit rates and what comes with them.
        learning_rates: The scheduled learning rate of each group, without its multiplier.
        multipliers: The multiplier that each group stepped with.
        groups: The groups' names, in layout order.
        seconds: How long the measurement took.
        overhead: Time of all measurements before this one, and of the hooks in each step, per time
            of training so far; None: not known yet.
    """

    step: int
    estimate: RateEstimate
    learning_rates: tuple[float, ...]
    multipliers: tuple[float, ...]
    groups: tuple[str, ...]
    seconds: float = field(compare=False)  # times differ between equal trainings
    overhead: float | None = field(compare=False)


@dataclass(frozen=True, slots=True)
class AdviceAdopted:
    """An answer's multipliers came into force.

    Attributes:
        step: The step at which they came into force; the answer may be about an earlier one.
        multipliers: One for each group.
        next_measurement_step: The step that is measured next.
        answer: The answer, or None on a rank that does not talk to the advisor.
    """

    step: int
    multipliers: tuple[float, ...]
    next_measurement_step: int
    answer: pb.RecommendLRResponse | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A part of a step failed; the training continues.

    Attributes:
        step: The step. A request to the advisor may fail some steps after its measurement.
        part: What failed.
        error: The exception.
    """

    step: int
    part: StepPart
    error: Exception


@dataclass(frozen=True, slots=True)
class Warned:
    """There is something that the user should know; each message comes once.

    Attributes:
        step: The step at which it was noticed.
        message: What to know, and what to do.
        is_hint: Whether nothing is wrong, and the message is only advice.
    """

    step: int
    message: str
    is_hint: bool = False


Event = Started | Measured | AdviceAdopted | Failed | Warned


class Listener(Protocol):
    """Receives the events of a training.

    It is called in the thread that trains, inside of the optimizer's step, so it should be quick.
    What it raises is logged once and does not reach the training.
    """

    def __call__(self, event: Event, /) -> None:
        """Receive an event."""
        ...


_LACKS = {
    StepPart.MEASUREMENT: "was not measured",
    StepPart.SCALING: "was not scaled",
    StepPart.ADVICE: "got no new advice",
}


_LARGE_CHANGE = 2.0  # factor on a multiplier
_ANSWERS_BETWEEN_LINES = 10
_MAX_LISTED = 4


class LogListener:
    """Writes warnings, failures, and what a person should know of a run to the logger ``fslr``.

    A part that keeps failing is logged once. Missing advice is logged again after an answer came.

    At level INFO there is a line when a run starts, and one when an answer has changed any
    multiplier by more than a factor of 2 since the last line, at most every 10 answers. Only the
    rank that talks to the advisor writes them.
    """

    def __init__(self) -> None:
        self._failed: set[StepPart] = set()
        self._groups: list[str] = []
        self._logged: tuple[float, ...] = ()
        self._answers = _ANSWERS_BETWEEN_LINES  # since the last line

    def __call__(self, event: Event, /) -> None:
        """Log an event that deserves it."""
        match event:
            case Warned(message=message, is_hint=is_hint):
                _log.log(logging.INFO if is_hint else logging.WARNING, "%s", message)
            case Failed(step, part, error) if part not in self._failed:
                self._failed.add(part)
                _log.warning(
                    "step %d %s, training continues unchanged: %s: %s",
                    step,
                    _LACKS[part],
                    type(error).__name__,
                    error,
                )
            case Started():
                self._start(event)
            case AdviceAdopted():
                self._failed.discard(StepPart.ADVICE)
                self._log_change(event)
            case _:
                pass

    def _start(self, event: Started) -> None:
        self._groups = [group.name for group in event.opening.layout.groups]
        self._logged = event.multipliers
        if event.mapping is not None:
            _log.info("%s", _start_words(event, event.mapping))

    def _log_change(self, event: AdviceAdopted) -> None:
        if event.answer is None:
            return
        self._answers += 1
        before = self._logged or (1.0,) * len(event.multipliers)
        changes = [
            max(new / old, old / new) for new, old in zip(event.multipliers, before, strict=True)
        ]
        largest = max(range(len(changes)), key=lambda group: changes[group])
        if changes[largest] <= _LARGE_CHANGE or self._answers < _ANSWERS_BETWEEN_LINES:
            return
        _log.info(
            "step %d: multipliers are %s; %s changed most, from %.3g to %.3g; of %d groups %s",
            event.step,
            range_words(event.multipliers),
            self._groups[largest] if self._groups else f"group {largest}",
            before[largest],
            event.multipliers[largest],
            len(event.multipliers),
            held_words(event.answer.outcomes),
        )
        self._logged = event.multipliers
        self._answers = 0


def _start_words(event: Started, mapping: profile_service_pb2.ValidateLayoutResponse) -> str:
    """Return what a person should know when a run starts."""
    opening = event.opening
    if opening.HasField("policy"):
        rules = "the run's own rules"
    else:
        rules = f"policy {short_name(mapping.policy)}" if mapping.policy else "the profile's rules"
    if mapping.recipe:
        rules += f" and the recipe {short_name(mapping.recipe)}"
    groups, unmatched = len(event.multipliers), len(mapping.unmatched)
    matched = groups - unmatched
    has = "has" if matched == 1 else "have"
    with_prior = sum(1 for group in mapping.mappings if group.prior)
    parts = [
        f"advice from {short_name(mapping.profile)} under {rules}",
        f"{matched} of {count_of(groups, 'group')} {has} a counterpart",
        *([f"held without one: {_listed(mapping.unmatched)}"] if unmatched else []),
        f"multipliers start at {range_words(event.multipliers)}, {with_prior} of them from shapes",
        *(["they are not applied (observe_only)"] if opening.observe_only else []),
    ]
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


class Listeners:
    """Passes events on to several listeners, of which none can harm the training.

    Args:
        listeners: The listeners, called in this order.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._failed: set[int] = set()

    @classmethod
    def with_log(cls, listeners: Iterable[Listener]) -> Self:
        """Return the log's listener and those of the user.

        Raises:
            AttachError: The user's are not a list of functions.
        """
        own = list(listeners) if isinstance(listeners, Iterable) else None
        if own is None or not all(map(callable, own)):
            raise AttachError(
                f"listeners is {listeners!r}; it must be a list of functions of one event"
            )
        return cls([LogListener(), *own])

    def emit(self, event: Event) -> None:
        """Call each listener with an event."""
        for place, listener in enumerate(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener must not stop the training
                if place not in self._failed:
                    self._failed.add(place)
                    _log.warning(
                        "the listener %r failed at step %d, and may miss more events",
                        listener,
                        event.step,
                        exc_info=True,
                    )
