"""Measurements to answers: decode, decide, encode; those that come together in one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advisor.advising.advice import Advice, Opening
from advisor.advising.mismatch_warnings import Kind
from advisor.policy import InvalidValueError, Measurement, Measurements, Outcome, Recommendations
from advisor.policy.reference import MAX_STEP
from advisor.wire import packed
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2

_OUTCOMES = {
    Outcome.MATCHED: policy_pb2.OUTCOME_MATCHED,
    Outcome.CLAMPED: policy_pb2.OUTCOME_CLAMPED,
    Outcome.HELD_LOW_CONFIDENCE: policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE,
    Outcome.HELD_ZERO_RATE: policy_pb2.OUTCOME_HELD_ZERO_RATE,
    Outcome.UNMATCHED: policy_pb2.OUTCOME_UNMATCHED,
    Outcome.HELD_FROZEN: policy_pb2.OUTCOME_HELD_FROZEN,
    Outcome.LIMITED: policy_pb2.OUTCOME_LIMITED,
}
# As bytes: integers below 128 are one byte each on the wire, and so are limits.
_OUTCOME_NUMBERS = np.array([_OUTCOMES[outcome] for outcome in Outcome], dtype=np.uint8)
_IS_RECOMMENDED = np.array([outcome.is_recommended for outcome in Outcome], dtype=np.uint8)
_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")
_MOST_NUMBERS = 2**14  # of an array that is decided at once: it stays in the processor's cache
_KINDS = {
    Kind.BASE_LEARNING_RATE: advisor_service_pb2.WARNING_KIND_BASE_LEARNING_RATE,
    Kind.OPTIMIZER: advisor_service_pb2.WARNING_KIND_OPTIMIZER,
    Kind.BATCH_SIZE: advisor_service_pb2.WARNING_KIND_BATCH_SIZE,
    Kind.LOSS: advisor_service_pb2.WARNING_KIND_LOSS,
    Kind.WARMUP: advisor_service_pb2.WARNING_KIND_WARMUP,
    Kind.NEAREST_ROLE: advisor_service_pb2.WARNING_KIND_NEAREST_ROLE,
}


class RecommendationRequest(NamedTuple):
    """A measurement that is to be answered.

    Attributes:
        advice: The run's advice.
        opening: The run's opening.
        message: The measurement, packed (see :mod:`.packed`).
    """

    advice: Advice
    opening: Opening
    message: Any


class Answer(NamedTuple):
    """The answer to a measurement.

    Attributes:
        encoded: A ``RecommendLRResponse``, encoded.
        codes: Why each multiplier is what it is, as in ``Recommendation.outcome_codes``.
    """

    encoded: bytes
    codes: npt.NDArray[np.uint8]


def measurement_from(message: advisor_service_pb2.Measurement, opening: Opening) -> Measurement:
    """Return the measurement of a message, defaults for what is absent; the policy checks it.

    Raises:
        InvalidValueError: A value that the policy does not look at is out of its range.
    """
    return _packed_measurement(packed.repacked(message), opening)


def answer(
    advice: Advice, opening: Opening, message: advisor_service_pb2.Measurement
) -> advisor_service_pb2.RecommendLRResponse:
    """Answer a measurement: decode, decide, encode. The same for the RPC and in process.

    Raises:
        InvalidValueError: The measurement is out of range; the field's path begins at
            ``measurement``.
    """
    answered = _answer_alone(RecommendationRequest(advice, opening, packed.repacked(message)))
    return advisor_service_pb2.RecommendLRResponse.FromString(answered.encoded)


def answers(asks: Sequence[RecommendationRequest]) -> list[Answer | Exception]:
    """Answer measurements of runs that share profile, mapping and rules (``Advice.plan``).

    Each is answered, or refused, as if it had come alone.

    Args:
        asks: What is asked, at least one.
    """
    groups = len(asks[0].opening.layout)
    room = max(_MOST_NUMBERS // groups, 1)
    found: list[Answer | Exception] = []
    for start in range(0, len(asks), room):
        some = asks[start : start + room]
        measured = _usual(some, groups)
        if measured is not None and asks[0].advice.refusal is None:
            try:
                found += _encoded(some, measured, some[0].advice.recommend_all(measured))
                continue
            except Exception:  # noqa: BLE001, S110 - one of them is why; told to that one alone
                pass
        for ask in some:
            try:
                found.append(_answer_alone(ask))
            except Exception as error:  # noqa: BLE001 - raised where it was asked
                found.append(error)
    return found


def _answer_alone(ask: RecommendationRequest) -> Answer:
    measurement = _packed_measurement(ask.message, ask.opening)
    try:
        recommended = ask.advice.recommend_all(ask.advice.checked(measurement))
    except InvalidValueError as error:
        parent = "opening" if error.field == "total_steps" else "measurement"
        raise error.under(parent) from None
    return _encoded([ask], Measurements.of([measurement]), recommended)[0]


def _usual(asks: Sequence[RecommendationRequest], groups: int) -> Measurements | None:
    """Return measurements as rows if each is complete and in range, else None."""
    messages = [ask.message for ask in asks]
    sizes = (4 * groups, 4 * groups, 4 * groups, 4 * groups, 8 * groups, groups)
    for message in messages:
        found = (
            len(message.unit_rates),
            len(message.relative_errors),
            len(message.learning_rates),
            len(message.shares),
            len(message.multipliers),
            len(message.advised),
        )
        if found != sizes or not _numbers_in_range(message):
            return None

    def rows(field: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        data = b"".join([getattr(message, field) for message in messages])
        return np.frombuffer(data, dtype).reshape(len(messages), groups)

    unit_rates, errors = rows("unit_rates", _FLOAT), rows("relative_errors", _FLOAT)
    rates, multipliers = rows("learning_rates", _FLOAT), rows("multipliers", _DOUBLE)
    good = (unit_rates >= 0) & (errors >= 0) & (rates >= 0) & (multipliers > 0)
    for values in (unit_rates, errors, rates, multipliers, rows("shares", _FLOAT)):
        good &= np.isfinite(values)
    if np.count_nonzero(good) < good.size:
        return None
    return Measurements(
        steps=[message.step for message in messages],
        unit_rates=unit_rates.astype(np.float64),
        relative_errors=errors.astype(np.float64),
        multipliers=multipliers.astype(np.float64, copy=False),
        interval_steps=[message.interval_steps for message in messages],
        total_steps=[ask.opening.total_steps for ask in asks],
        linearity_errors=[
            message.linearity_error if message.HasField("linearity_error") else None
            for message in messages
        ],
        probes=[message.probes for message in messages],
        learning_rates=np.maximum.reduce(rates, axis=1).astype(np.float64).tolist(),
        moves=rows("advised", np.bool_),
    )


def _numbers_in_range(message: Any) -> bool:
    """Return whether the numbers beside the arrays are; NaN is not."""
    return (
        0 <= message.step <= MAX_STEP
        and 0 <= message.interval_steps <= MAX_STEP
        and message.probes >= 0
        and message.examples >= 0
        and 0 <= message.total_rate < math.inf
        and 0 <= message.linearity_error < math.inf
        and math.isfinite(message.loss)
    )


def _packed_measurement(message: Any, opening: Opening) -> Measurement:
    """Return the measurement of a packed message."""
    groups = len(opening.layout)
    rates = packed.numbers(message.learning_rates, _FLOAT)
    if len(rates) not in (0, groups):
        raise InvalidValueError(
            "measurement.learning_rates",
            f"{len(rates)} entries, but the layout has {groups} groups",
        )
    good = np.isfinite(rates) & (rates >= 0)
    if np.count_nonzero(good) < len(rates):
        i = int(np.argmin(good))
        raise InvalidValueError(
            f"measurement.learning_rates[{i}]",
            f"{rates[i]} is not a finite number of at least 0",
        )
    if message.HasField("loss") and not math.isfinite(message.loss):
        raise InvalidValueError(
            "measurement.loss", f"{message.loss} is not finite; leave it out instead"
        )
    if not (math.isfinite(message.total_rate) and message.total_rate >= 0):
        raise InvalidValueError(
            "measurement.total_rate", f"{message.total_rate} is not a finite number of at least 0"
        )
    _check_shares(packed.numbers(message.shares, _FLOAT), groups)
    if message.examples < 0:
        raise InvalidValueError("measurement.examples", f"{message.examples} is below 0")
    errors, multipliers = message.relative_errors, message.multipliers
    return Measurement(
        step=message.step,
        unit_rates=packed.numbers(message.unit_rates, _FLOAT),
        relative_errors=packed.numbers(errors, _FLOAT) if errors else np.zeros(groups),
        multipliers=packed.numbers(multipliers, _DOUBLE) if multipliers else np.ones(groups),
        interval_steps=message.interval_steps,
        total_steps=opening.total_steps,
        linearity_error=message.linearity_error if message.HasField("linearity_error") else None,
        probes=message.probes,
        learning_rate=float(rates.max()) if rates.size else None,
        advised=np.frombuffer(message.advised, np.bool_) if message.advised else None,
    )


def _check_shares(shares: npt.NDArray[np.float64], groups: int) -> None:
    if len(shares) not in (0, groups):
        raise InvalidValueError(
            "measurement.shares", f"{len(shares)} entries, but the layout has {groups} groups"
        )
    finite = np.isfinite(shares)
    if np.count_nonzero(finite) < len(shares):
        i = int(np.argmin(finite))
        raise InvalidValueError(f"measurement.shares[{i}]", f"{shares[i]} is not finite")


def _encoded(
    asks: Sequence[RecommendationRequest], measured: Measurements, recommended: Recommendations
) -> list[Answer]:
    multipliers = _cut(recommended.multipliers.astype(_DOUBLE, copy=False))
    outcomes = _cut(_OUTCOME_NUMBERS[recommended.outcome_codes])
    flags = _cut(_IS_RECOMMENDED[recommended.outcome_codes])
    references = _cut(recommended.references.astype(_FLOAT))
    factors = _cut(recommended.depth_factors.astype(_FLOAT))
    ratios = _cut(recommended.ratios.astype(_DOUBLE, copy=False))
    limits = _cut(recommended.limits.astype(np.uint8))
    found = []
    for i, (advice, _, message) in enumerate(asks):
        response = packed.Response(
            step=message.step,
            profile=advice.version_name,
            digest=advice.info.digest,
            multipliers=multipliers[i],
            outcomes=outcomes[i],
            reference_unit_rates=references[i],
            next_measurement_step=recommended.next_measurement_steps[i],
            stale=advice.stale,
            depth_factors=factors[i],
            raw_multipliers=ratios[i],
            limits=limits[i],
            probes=recommended.probes[i],
            profile_step=recommended.profile_steps[i],
            policy=advice.policy_name,
            recommended=flags[i],
            warnings=[
                advisor_service_pb2.Warning(
                    kind=_KINDS[difference.kind], message=difference.message
                ).SerializeToString()
                for difference in advice.differences(measured.row(i), recommended.profile_steps[i])
            ],
        )
        found.append(Answer(response.SerializeToString(), recommended.outcome_codes[i]))
    return found


def _cut(array: npt.NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row."""
    data, size = array.tobytes(), array.itemsize * array.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]
