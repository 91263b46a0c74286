"""Asks the advisor of a run for all ranks that train the model.

The speaking rank asks; the others learn the answer from it. Every method is a collective, and what
it does depends on nothing that could differ from rank to rank, so no rank waits in vain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.errors import LayoutMismatchError, ServiceError
from fslr.protocols import Advisor
from fslr.training.background import BackgroundSession

_NOTHING, _ANSWER, _UNUSABLE = 0.0, 1.0, 2.0


class Ranks(Protocol):
    """The processes that train one model, as far as asking needs them."""

    @property
    def speaks(self) -> bool:
        """Whether this rank talks to the advisor."""
        ...

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        """Return the speaking rank's values; all ranks give as many."""
        ...

    def words_from_speaker(self, words: str) -> str:
        """Return the speaking rank's words."""
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

    def words_from_speaker(self, words: str) -> str:
        """Return the words."""
        return words


@dataclass(frozen=True, slots=True)
class Advice:
    """What an answer says, on every rank.

    Attributes:
        multipliers: One for each group.
        next_measurement_step: When to measure next.
        probes: With how many probes; 0: as many as before.
        answer: The answer itself, on the speaking rank alone.
    """

    multipliers: list[float]
    next_measurement_step: int
    probes: int
    answer: pb.RecommendLRResponse | None


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
        self._groups = len(opening.layout.groups)
        self._session = advisor.open_run(opening) if ranks.speaks else None
        self._background = None if self._session is None else BackgroundSession(self._session)
        self._waiting = False
        self._lost = 0  # beside those that the background counts

    @property
    def unanswered(self) -> int:
        """Number of measurements without an answer, or with one that cannot be applied.

        0 on ranks that do not speak.
        """
        background = self._background
        return 0 if background is None else self._lost + background.failed + background.replaced

    def check(self) -> None:
        """Ask whether the layout maps, before the first step.

        Raises:
            LayoutMismatchError: It does not.
            ServiceError: Nobody answers, or the profile is not there.
        """
        refusal: Exception | None = None
        if self._ranks.speaks:
            try:
                mapped = self._advisor.validate_layout(self._opening)
                if mapped.refusal:
                    refusal = LayoutMismatchError(
                        mapped.refusal, metadata={"profile": mapped.profile}
                    )
            except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
                refusal = error
        words = self._ranks.words_from_speaker(_words(refusal))
        if words:
            raise refusal or ServiceError(words)

    def ask(self, measurement: pb.Measurement) -> Advice:
        """Return the advice on a measurement; training waits for it.

        Args:
            measurement: What was measured.

        Raises:
            ServiceError: There is no answer, or none that can be applied.
        """
        answer: pb.RecommendLRResponse | None = None
        failure: Exception | None = None
        if self._session is not None:
            try:
                answer = self._session.recommend(measurement)
            except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
                failure = error
        words = self._ranks.words_from_speaker(_words(failure))
        if words:
            self._lost += 1
            raise failure or ServiceError(words)
        return self._shared(answer)

    def submit(self, measurement: pb.Measurement) -> None:
        """Ask in the background."""
        if self._background is not None:
            self._background.submit(measurement)
        self._waiting = True

    def news(self) -> Advice | None:
        """Return the newest advice that came in the background since the last call, or None.

        Costs the ranks one small broadcast, and that only while an answer is due.

        Raises:
            ServiceError: There is an answer that cannot be applied.
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

    def close(self) -> None:
        """End the exchange."""
        if self._background is not None:
            self._background.close()

    def _shared(self, answer: pb.RecommendLRResponse | None) -> Advice:
        values = [_UNUSABLE, 0.0, 0.0, 0.0] + [1.0] * self._groups
        if answer is not None and self._usable(answer):
            plan = [float(answer.step), float(answer.next_measurement_step), float(answer.probes)]
            values = [_ANSWER, *plan, *answer.multipliers]
        kind, step, following, probes, *multipliers = self._ranks.from_speaker(values)
        if kind == _UNUSABLE:
            self._lost += 1
            at = "a step" if answer is None else f"step {answer.step}"
            raise ServiceError(
                f"the advisor answered {at} with multipliers that cannot be applied; "
                "those in force stay"
            )
        return Advice(multipliers, max(int(following), int(step) + 1), int(probes), answer)

    def _usable(self, answer: pb.RecommendLRResponse) -> bool:
        return len(answer.multipliers) == self._groups and all(
            math.isfinite(multiplier) and multiplier > 0 for multiplier in answer.multipliers
        )


def _words(error: Exception | None) -> str:
    """Return what an error says, never nothing; nothing where there is none."""
    return "" if error is None else str(error) or type(error).__name__
