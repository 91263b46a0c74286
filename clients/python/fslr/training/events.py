"""What happens during a training, as frozen events; a listener is any callable that takes one.

Logs, progress bars and trackers hang on these events. Logging is itself a listener.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.training.estimate import RateEstimate

_log = logging.getLogger("fslr")


class StepPart(enum.Enum):
    """A part of a step that can fail without stopping the training."""

    MEASUREMENT = "measurement"
    SCALING = "scaling"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Measured:
    """A step was measured.

    Attributes:
        step: The step, counted from 0.
        estimate: The unit rates and what comes with them.
        learning_rates: The scheduled learning rate of each group, without its multiplier.
        multipliers: The multiplier that each group stepped with.
    """

    step: int
    estimate: RateEstimate
    learning_rates: tuple[float, ...]
    multipliers: tuple[float, ...]


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


Event = Measured | AdviceAdopted | Failed | Warned


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


class LogListener:
    """Writes warnings and failures to the logger ``fslr``.

    A part that keeps failing is logged once. Missing advice is logged again after an answer came.
    """

    def __init__(self) -> None:
        self._failed: set[StepPart] = set()

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
            case AdviceAdopted():
                self._failed.discard(StepPart.ADVICE)
            case _:
                pass


class Listeners:
    """Passes events on to several listeners, of which none can harm the training.

    Args:
        listeners: The listeners, called in this order.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._failed: set[int] = set()

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
