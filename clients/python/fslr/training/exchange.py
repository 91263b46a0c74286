"""The exchange of measurements and advice between a run, on all its ranks, and its advisor.

The speaking rank asks, and passes the answer on to the others. Every method but ``close`` and
``take_errors`` is a collective. What it does depends only on values that are equal on all ranks, so
no rank waits for one that does not come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2
from fslr.errors import LayoutMismatchError, ServiceError
from fslr.protocols import Advisor, RunSession
from fslr.training.background import BackgroundSession, RequestError

_NOTHING, _ANSWER, _UNUSABLE = 0.0, 1.0, 2.0


class Ranks(Protocol):
    """The processes that train one model, as far as the exchange needs them."""

    @property
    def speaks(self) -> bool:
        """Whether this rank talks to the advisor."""
        ...

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        """Return the speaking rank's values; all ranks pass the same number of them."""
        ...

    def text_from_speaker(self, text: str) -> str:
        """Return the speaking rank's text."""
        ...


class OneProcess:
    """The ranks of a training in a single process."""

    @property
    def speaks(self) -> bool:
        """Whether this rank talks to the advisor: yes."""
        return True

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        """Return the values."""
        return list(values)

    def text_from_speaker(self, text: str) -> str:
        """Return the text."""
        return text


@dataclass(frozen=True, slots=True)
class Start:
    """What is known about a run before its first step, as every rank knows it.

    Attributes:
        priors: Each group's multiplier before anything is measured; 0: it has none.
        mapping: How the layout maps onto the profile; None on ranks that do not speak.
        weight_decay: What multipliers do to weight decay.
        has_recipe: Whether the run follows a recipe.
        bounds: The smallest and the largest multiplier; 0 and infinity if the advisor does not say.
    """

    priors: list[float]
    mapping: profile_service_pb2.ValidateLayoutResponse | None
    weight_decay: policy_pb2.WeightDecayRule.ValueType
    has_recipe: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)


@dataclass(frozen=True, slots=True)
class Advice:
    """An answer, as every rank knows it.

    Attributes:
        multipliers: One for each group.
        next_measurement_step: The step to measure next.
        probes: Number of probes to measure with; 0: as before.
        answer: The answer itself; None on ranks that do not speak.
        weight_decay: What multipliers do to weight decay.
    """

    multipliers: list[float]
    next_measurement_step: int
    probes: int
    answer: pb.RecommendLRResponse | None
    weight_decay: policy_pb2.WeightDecayRule.ValueType


class Exchange:
    """The exchange of measurements and advice of one run.

    Args:
        advisor: The advisor to ask.
        opening: The run.
        ranks: The processes that train the model.
    """

    def __init__(self, advisor: Advisor, opening: pb.RunOpening, ranks: Ranks) -> None:
        self._advisor = advisor
        self._opening = opening
        self._ranks = ranks
        self._groups = [group.name for group in opening.layout.groups]
        self._waiting = False
        self._unusable_answers = 0
        self._open()

    def _open(self) -> None:
        self._session: RunSession | None = None
        self._background: BackgroundSession | None = None
        if self._ranks.speaks:
            self._session = self._advisor.open_run(self._opening)
            self._background = BackgroundSession(self._session)

    def reopen(self) -> None:
        """Open the run again, as its opening says by now; nothing may have been sent before."""
        self.close()
        self._open()

    @property
    def background(self) -> BackgroundSession | None:
        """Sends without waiting; None on ranks that do not speak."""
        return self._background

    @property
    def unanswered(self) -> int:
        """Number of measurements without an answer, or with one that cannot be applied.

        0 on ranks that do not speak.
        """
        background = self._background
        return (
            0
            if background is None
            else self._unusable_answers + background.failed + background.replaced
        )

    def check(self) -> Start:
        """Ask how the layout maps, and with which multipliers to start.

        Raises:
            LayoutMismatchError: The layout does not map.
            ServiceError: The advisor does not answer, the profile does not exist, or a prior or a
                bound of multipliers cannot be applied.
        """
        mapping: profile_service_pb2.ValidateLayoutResponse | None = None
        priors = [0.0] * len(self._groups)
        lowest = highest = 0.0
        refusal: Exception | None = None
        if self._ranks.speaks:
            try:
                mapping = self._advisor.validate_layout(self._opening)
                priors = self._priors(mapping)
                lowest, highest = _bounds(mapping)
            except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
                refusal = error
        message = self._ranks.text_from_speaker(_message(refusal))
        if message:
            raise refusal or ServiceError(message)
        rule = policy_pb2.WEIGHT_DECAY_RULE_UNSPECIFIED if mapping is None else mapping.weight_decay
        recipe = 0.0 if mapping is None else float(bool(mapping.recipe))
        *priors, spoken, has_recipe, lowest, highest = self._ranks.from_speaker([
            *priors,
            float(rule),
            recipe,
            lowest,
            highest,
        ])
        decay = policy_pb2.WeightDecayRule.ValueType(int(spoken))
        return Start(priors, mapping, decay, has_recipe > 0, (lowest, highest or math.inf))

    def _priors(self, mapping: profile_service_pb2.ValidateLayoutResponse) -> list[float]:
        """Return each group's prior; 0 where the advisor sent none.

        Raises:
            LayoutMismatchError: The layout does not map.
            ServiceError: A prior is negative or not finite.
        """
        if mapping.refusal:
            raise LayoutMismatchError(mapping.refusal, metadata={"profile": mapping.profile})
        sent = {group.group: group.prior for group in mapping.mappings}
        for name, prior in sent.items():
            if not (math.isfinite(prior) and prior >= 0):
                raise ServiceError(
                    f"the advisor sent {prior} as the prior of {name}; a prior is a finite number "
                    "above 0, or 0 for none"
                )
        return [sent.get(name, 0.0) for name in self._groups]

    def ask(self, measurement: pb.Measurement) -> Advice:
        """Return the advice on a measurement; the training waits for it.

        Args:
            measurement: The measurement.

        Raises:
            ServiceError: There is no answer, or it cannot be applied.
        """
        answer: pb.RecommendLRResponse | None = None
        failure: Exception | None = None
        if self._session is not None:
            try:
                answer = self._session.recommend(measurement)
            except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
                failure = error
        message = self._ranks.text_from_speaker(_message(failure))
        if message:
            self._unusable_answers += 1
            raise failure or ServiceError(message)
        return self._shared(answer)

    def submit(self, measurement: pb.Measurement) -> None:
        """Send a measurement in the background.

        Args:
            measurement: The measurement.
        """
        if self._background is not None:
            self._background.submit(measurement)
        self._waiting = True

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is outstanding; equal on all ranks."""
        return self._waiting

    def news(self) -> Advice | None:
        """Return the newest advice that arrived since the last call, or None.

        It costs the ranks one small broadcast, and only while an answer is outstanding.

        Raises:
            ServiceError: An answer arrived that cannot be applied.
        """
        if not self._waiting:
            return None
        background = self._background
        waiting = background is not None and background.outstanding > 0
        answer = None if background is None else background.take_answer()
        kind = _NOTHING if answer is None else _ANSWER
        still, kind = self._ranks.from_speaker([float(waiting), kind])
        self._waiting = still > 0
        return None if kind == _NOTHING else self._shared(answer)

    def take_errors(self) -> list[RequestError]:
        """Return the background requests that failed since the last call; none on other ranks."""
        background = self._background
        return [] if background is None or not background.has_errors else background.take_errors()

    def close(self) -> None:
        """End the exchange."""
        if self._background is not None:
            self._background.close()

    def _shared(self, answer: pb.RecommendLRResponse | None) -> Advice:
        values = [_UNUSABLE, 0.0, 0.0, 0.0, 0.0] + [1.0] * len(self._groups)
        if answer is not None and self._usable(answer):
            plan = [float(answer.step), float(answer.next_measurement_step), float(answer.probes)]
            values = [_ANSWER, *plan, float(answer.weight_decay), *answer.multipliers]
        kind, step, following, probes, rule, *multipliers = self._ranks.from_speaker(values)
        if kind == _UNUSABLE:
            self._unusable_answers += 1
            at = "a step" if answer is None else f"step {answer.step}"
            raise ServiceError(
                f"the advisor answered {at} with multipliers that cannot be applied; "
                "the present ones stay in force"
            )
        return Advice(
            multipliers,
            max(int(following), int(step) + 1),
            int(probes),
            answer,
            policy_pb2.WeightDecayRule.ValueType(int(rule)),
        )

    def _usable(self, answer: pb.RecommendLRResponse) -> bool:
        return len(answer.multipliers) == len(self._groups) and all(
            math.isfinite(multiplier) and multiplier > 0 for multiplier in answer.multipliers
        )


def _bounds(mapping: profile_service_pb2.ValidateLayoutResponse) -> tuple[float, float]:
    """Return the smallest and the largest multiplier; 0 where the advisor does not say.

    Raises:
        ServiceError: They are not finite, or the largest one is below the smallest.
    """
    lowest, highest = mapping.min_multiplier, mapping.max_multiplier
    if not (0 <= lowest < math.inf and (highest == 0 or lowest <= highest < math.inf)):
        raise ServiceError(
            f"the advisor sent {lowest} and {highest} as the smallest and largest multiplier; both "
            "are finite numbers above 0, or 0 if they are not known"
        )
    return lowest, highest


def _message(error: Exception | None) -> str:
    """Return an error's message, or its type where that is empty; "" without an error."""
    return "" if error is None else str(error) or type(error).__name__
