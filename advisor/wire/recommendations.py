"""Measurements to recommendations: decode, recommend, encode.

The RPC decodes and encodes packed messages (:mod:`.packed`) and answers several runs at once; in
process the fields of the contract's own messages are read and set. The decisions are the same code,
and the answers bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advisor.advising.advice import Advice
from advisor.advising.mismatch_warnings import Difference, DifferenceKind
from advisor.advising.opening import Opening
from advisor.policy import InvalidValueError, Measurement, Measurements, Outcome, Recommendations
from advisor.policy.measurement import ARRAY_RANGES, NUMBER_RANGES, check_array
from advisor.registry.profiles import check_words
from advisor.wire import packed
from advisor.wire.field_paths import field_path
from advisor.wire.policies import weight_decay_to_proto
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2

_OUTCOMES = {
    Outcome.MATCHED: policy_pb2.OUTCOME_MATCHED,
    Outcome.CLAMPED: policy_pb2.OUTCOME_CLAMPED,
    Outcome.HELD_LOW_CONFIDENCE: policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE,
    Outcome.HELD_ZERO_RATE: policy_pb2.OUTCOME_HELD_ZERO_RATE,
    Outcome.UNMATCHED: policy_pb2.OUTCOME_UNMATCHED,
    Outcome.HELD_FROZEN: policy_pb2.OUTCOME_HELD_FROZEN,
    Outcome.LIMITED: policy_pb2.OUTCOME_LIMITED,
    Outcome.PRIOR: policy_pb2.OUTCOME_PRIOR,
}
# As bytes: an integer below 128 takes one byte on the wire.
_OUTCOME_NUMBERS = np.array([_OUTCOMES[outcome] for outcome in Outcome], dtype=np.uint8)
_IS_RECOMMENDED = np.array([outcome.is_recommended for outcome in Outcome], dtype=np.bool_)
_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")
_MAX_BATCH_NUMBERS = 2**14  # entries of an array in one batch: it stays in the processor's cache
_NUMBER_FIELDS = (
    *("step", "interval_steps", "probes", "examples"),
    *("total_rate", "linearity_error", "loss"),
    *("measuring_seconds", "measuring_overhead"),
)
# The lowest and the highest value of each field, compared for every measurement. An absent field
# reads 0, which is in range.
_NUMBER_BOUNDS = [
    (
        field,
        math.nextafter(allowed.low, math.inf) if allowed.excludes_low else allowed.low,
        allowed.high,
    )
    for field, allowed in ((field, NUMBER_RANGES[field]) for field in _NUMBER_FIELDS)
]
_WARNING_KINDS = {
    DifferenceKind.BASE_LEARNING_RATE: advisor_service_pb2.WARNING_KIND_BASE_LEARNING_RATE,
    DifferenceKind.OPTIMIZER: advisor_service_pb2.WARNING_KIND_OPTIMIZER,
    DifferenceKind.BATCH_SIZE: advisor_service_pb2.WARNING_KIND_BATCH_SIZE,
    DifferenceKind.LOSS: advisor_service_pb2.WARNING_KIND_LOSS,
    DifferenceKind.WARMUP: advisor_service_pb2.WARNING_KIND_WARMUP,
    DifferenceKind.NEAREST_ROLE: advisor_service_pb2.WARNING_KIND_NEAREST_ROLE,
    DifferenceKind.WEIGHT_DECAY: advisor_service_pb2.WARNING_KIND_WEIGHT_DECAY,
    DifferenceKind.RECORDING: advisor_service_pb2.WARNING_KIND_RECORDING,
    DifferenceKind.INITIAL_WEIGHTS: advisor_service_pb2.WARNING_KIND_INITIAL_WEIGHTS,
    DifferenceKind.SCHEDULE: advisor_service_pb2.WARNING_KIND_SCHEDULE,
    DifferenceKind.MASK: advisor_service_pb2.WARNING_KIND_MASK,
    DifferenceKind.RECIPE: advisor_service_pb2.WARNING_KIND_RECIPE,
    DifferenceKind.RECIPE_DISAGREES: advisor_service_pb2.WARNING_KIND_RECIPE_DISAGREES,
}


class RecommendationRequest(NamedTuple):
    """A measurement to be answered.

    Attributes:
        advice: The run's advice.
        opening: The run's opening.
        measurement: The measurement, packed (see :mod:`.packed`).
    """

    advice: Advice
    opening: Opening
    measurement: Any


class Answer(NamedTuple):
    """The answer to a measurement.

    Attributes:
        encoded: A ``RecommendLRResponse``, encoded.
        outcome_codes: Why each multiplier is what it is, as in ``Recommendation.outcome_codes``.
        next_measurement_step: Step of the next measurement.
    """

    encoded: bytes
    outcome_codes: npt.NDArray[np.uint8]
    next_measurement_step: int = 0


class _Arrays(NamedTuple):
    """The arrays of a measurement, empty where they are absent."""

    unit_rates: npt.NDArray[np.float64]
    relative_errors: npt.NDArray[np.float64]
    multipliers: npt.NDArray[np.float64]
    learning_rates: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    advised: npt.NDArray[np.bool_]
    weight_rms: npt.NDArray[np.float64]
    update_rms: npt.NDArray[np.float64]
    weight_decays: npt.NDArray[np.float64]


def measurement_from_proto(
    message: advisor_service_pb2.Measurement, opening: Opening
) -> Measurement:
    """Return the measurement of a message, with defaults for absent fields.

    Raises:
        InvalidValueError: A value that the policy does not check is out of its range.
    """
    arrays = _Arrays(
        unit_rates=np.fromiter(message.unit_rates, np.float64),
        relative_errors=np.fromiter(message.relative_errors, np.float64),
        multipliers=np.fromiter(message.multipliers, np.float64),
        learning_rates=np.fromiter(message.learning_rates, np.float64),
        shares=np.fromiter(message.shares, np.float64),
        advised=np.fromiter(message.advised, np.bool_),
        weight_rms=np.fromiter(message.weight_rms, np.float64),
        update_rms=np.fromiter(message.update_rms, np.float64),
        weight_decays=np.fromiter(message.weight_decays, np.float64),
    )
    return _measurement(message, arrays, opening)


def answer(
    advice: Advice, opening: Opening, message: advisor_service_pb2.Measurement
) -> advisor_service_pb2.RecommendLRResponse:
    """Answer a measurement in process, without serializing anything.

    Raises:
        InvalidValueError: The measurement is out of range; the field's path begins at
            ``measurement``.
        LayoutMismatchError: The layout does not map onto the profile.
    """
    measurement = measurement_from_proto(message, opening)
    recommended = _recommend(advice, measurement)
    row = recommended.row(0)
    return advisor_service_pb2.RecommendLRResponse(
        multipliers=row.multipliers.tolist(),
        outcomes=_OUTCOME_NUMBERS[row.outcome_codes].tolist(),
        reference_unit_rates=row.references.astype(_FLOAT).tolist(),
        depth_factors=row.depth_factors.astype(_FLOAT).tolist(),
        raw_multipliers=row.ratios.tolist(),
        limits=row.limits.tolist(),
        priors=known_priors(row.priors).tolist(),
        recommended=_IS_RECOMMENDED[row.outcome_codes].tolist(),
        warnings=_warnings(advice, measurement, row.profile_step, row.ratios),
        **_scalars(advice, measurement.step, recommended, 0),
    )


def answer_batch(
    requests: Sequence[RecommendationRequest], *, on_defect: Callable[[Exception], None]
) -> list[Answer | Exception]:
    """Answer measurements of runs that share profile, mapping and rules (``Advice.plan``).

    Each answer or error is the one that its request would get on its own.

    Args:
        requests: The requests, at least one.
        on_defect: Called with an unexpected exception of a batch. The batch's requests are then
            answered one by one.
    """
    groups = len(requests[0].opening.layout)
    batch_size = max(_MAX_BATCH_NUMBERS // groups, 1)
    results: list[Answer | Exception] = []
    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        answers = _answer_at_once(batch, groups, on_defect)
        if answers is None:
            results += [_answer_one(request) for request in batch]
        else:
            results += answers
    return results


def _answer_at_once(
    batch: Sequence[RecommendationRequest], groups: int, on_defect: Callable[[Exception], None]
) -> list[Answer] | None:
    """Return the answers to a batch; None if its requests have to be answered one by one."""
    advice = batch[0].advice
    measurements = _complete_measurements(batch, groups)
    if measurements is None or advice.refusal is not None:
        return None
    try:
        return _encode(batch, measurements, advice.recommend_all(measurements))
    except InvalidValueError:
        return None  # one of the requests is invalid: only that one gets the error
    except Exception as error:  # noqa: BLE001 - reported; the requests are answered all the same
        on_defect(error)
        return None


def _answer_one(request: RecommendationRequest) -> Answer | Exception:
    try:
        measurement = _packed_measurement(request.measurement, request.opening)
        recommended = _recommend(request.advice, measurement)
        return _encode([request], Measurements.of([measurement]), recommended)[0]
    except Exception as error:  # noqa: BLE001 - raised to the caller of this request
        return error


def _recommend(advice: Advice, measurement: Measurement) -> Recommendations:
    try:
        return advice.recommend_all(advice.checked(measurement))
    except InvalidValueError as error:
        parent = "opening" if error.field == "total_steps" else "measurement"
        raise error.under(parent) from None


def _complete_measurements(
    requests: Sequence[RecommendationRequest], groups: int
) -> Measurements | None:
    """Return the measurements as rows if all are complete and in range, else None."""
    messages = [request.measurement for request in requests]
    expected = (4 * groups, 4 * groups, 4 * groups, 4 * groups, 8 * groups, groups)
    for message in messages:
        sizes = (
            len(message.unit_rates),
            len(message.relative_errors),
            len(message.learning_rates),
            len(message.shares),
            len(message.multipliers),
            len(message.advised),
        )
        if sizes != expected or not _numbers_in_range(message):
            return None

    def rows(field: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        data = b"".join([getattr(message, field) for message in messages])
        return np.frombuffer(data, dtype).reshape(len(messages), groups)

    unit_rates, errors = rows("unit_rates", _FLOAT), rows("relative_errors", _FLOAT)
    learning_rates, multipliers = rows("learning_rates", _FLOAT), rows("multipliers", _DOUBLE)
    inside = ARRAY_RANGES["shares"].contains_each(rows("shares", _FLOAT))
    inside &= ARRAY_RANGES["unit_rates"].contains_each(unit_rates)
    inside &= ARRAY_RANGES["relative_errors"].contains_each(errors)
    inside &= ARRAY_RANGES["learning_rates"].contains_each(learning_rates)
    inside &= ARRAY_RANGES["multipliers"].contains_each(multipliers)
    if np.count_nonzero(inside) < inside.size:
        return None
    masks = [message.mask for message in messages]
    try:
        for mask in {*masks}:
            check_words("mask", mask)
        weight_rms, update_rms, _ = (
            _rows_where_sent(field, [getattr(message, field) for message in messages], groups)
            for field in ("weight_rms", "update_rms", "weight_decays")
        )
    except InvalidValueError:
        return None
    return Measurements(
        steps=[message.step for message in messages],
        unit_rates=unit_rates.astype(np.float64),
        relative_errors=errors.astype(np.float64),
        multipliers=multipliers.astype(np.float64, copy=False),
        interval_steps=[message.interval_steps for message in messages],
        total_steps=[request.opening.total_steps for request in requests],
        linearity_errors=[
            message.linearity_error if message.HasField("linearity_error") else None
            for message in messages
        ],
        probes=[message.probes for message in messages],
        learning_rates=np.maximum.reduce(learning_rates, axis=1).astype(np.float64).tolist(),
        moves=rows("advised", np.bool_),
        excludes_weight_decay=[message.excludes_weight_decay for message in messages],
        masks=masks,
        weight_rms=weight_rms,
        update_rms=update_rms,
    )


def _rows_where_sent(
    field: str, data: Sequence[bytes], groups: int
) -> npt.NDArray[np.float64] | None:
    """Return an optional array of several messages as rows, with NaN where it is absent.

    Args:
        field: The array's name in ``ARRAY_RANGES``.
        data: The array of each message, encoded; empty where it is absent.
        groups: Number of groups of the layout.

    Returns:
        The rows; None if the array is absent in all messages.

    Raises:
        InvalidValueError: An array has the wrong length, or an entry is out of its range.
    """
    if not any(data):
        return None
    absent = np.full(groups, np.nan, _FLOAT).tobytes()
    sent = sum(map(bool, data))
    if {*map(len, data)} <= {0, len(absent)}:
        joined = b"".join([each or absent for each in data])
        rows = np.frombuffer(joined, _FLOAT).reshape(len(data), groups)
        if np.count_nonzero(ARRAY_RANGES[field].contains_each(rows)) == sent * groups:
            return rows.astype(np.float64)
    raise InvalidValueError(field, "wrong length, or an entry out of range, in one of the messages")


def _numbers_in_range(message: Any) -> bool:
    """Return whether the numbers of a message, apart from its arrays, are in range."""
    for field, low, high in _NUMBER_BOUNDS:  # noqa: SIM110 - faster than all()
        if not low <= getattr(message, field) <= high:  # NaN is not in range either
            return False
    return True


def _packed_measurement(message: Any, opening: Opening) -> Measurement:
    """Return the measurement of a packed message; see :func:`measurement_from_proto`."""
    arrays = _Arrays(
        unit_rates=packed.numbers(message.unit_rates, _FLOAT),
        relative_errors=packed.numbers(message.relative_errors, _FLOAT),
        multipliers=packed.numbers(message.multipliers, _DOUBLE),
        learning_rates=packed.numbers(message.learning_rates, _FLOAT),
        shares=packed.numbers(message.shares, _FLOAT),
        advised=np.frombuffer(message.advised, np.bool_),
        weight_rms=packed.numbers(message.weight_rms, _FLOAT),
        update_rms=packed.numbers(message.update_rms, _FLOAT),
        weight_decays=packed.numbers(message.weight_decays, _FLOAT),
    )
    return _measurement(message, arrays, opening)


def _measurement(message: Any, arrays: _Arrays, opening: Opening) -> Measurement:
    """Return the measurement of a message, packed or not, whose arrays are given.

    Checks the ranges of the fields that the policy does not use.
    """
    groups = len(opening.layout)
    learning_rates = arrays.learning_rates
    with field_path("measurement"):
        if learning_rates.size:
            check_array("learning_rates", learning_rates, groups)
        if message.HasField("loss"):
            NUMBER_RANGES["loss"].check("loss", message.loss)
        for field in ("total_rate", "measuring_seconds", "measuring_overhead"):
            NUMBER_RANGES[field].check(field, getattr(message, field))
        if arrays.shares.size:
            check_array("shares", arrays.shares, groups)
        if arrays.weight_decays.size:
            check_array("weight_decays", arrays.weight_decays, groups)
        NUMBER_RANGES["examples"].check("examples", message.examples)
        check_words("mask", message.mask)
    return Measurement(
        step=message.step,
        unit_rates=arrays.unit_rates,
        relative_errors=arrays.relative_errors if arrays.relative_errors.size else np.zeros(groups),
        multipliers=arrays.multipliers if arrays.multipliers.size else np.ones(groups),
        interval_steps=message.interval_steps,
        total_steps=opening.total_steps,
        linearity_error=message.linearity_error if message.HasField("linearity_error") else None,
        probes=message.probes,
        learning_rate=float(learning_rates.max()) if learning_rates.size else None,
        advised=arrays.advised if arrays.advised.size else None,
        weight_rms=arrays.weight_rms if arrays.weight_rms.size else None,
        update_rms=arrays.update_rms if arrays.update_rms.size else None,
        excludes_weight_decay=message.excludes_weight_decay,
        mask=message.mask,
    )


def _encode(
    requests: Sequence[RecommendationRequest],
    measurements: Measurements,
    recommended: Recommendations,
) -> list[Answer]:
    multipliers = _row_bytes(recommended.multipliers.astype(_DOUBLE, copy=False))
    outcomes = _row_bytes(_OUTCOME_NUMBERS[recommended.outcome_codes])
    is_recommended = _row_bytes(_IS_RECOMMENDED[recommended.outcome_codes])
    references = _row_bytes(recommended.references.astype(_FLOAT))
    depth_factors = _row_bytes(recommended.depth_factors.astype(_FLOAT))
    ratios = _row_bytes(recommended.ratios.astype(_DOUBLE, copy=False))
    limits = packed.small_integers(recommended.limits)
    priors = known_priors(recommended.priors).astype(_DOUBLE, copy=False).tobytes()
    answers = []
    for i, (advice, _, message) in enumerate(requests):
        warnings = _warnings(
            advice, measurements.row(i), recommended.profile_steps[i], recommended.ratios[i]
        )
        response = packed.Response(
            multipliers=multipliers[i],
            outcomes=outcomes[i],
            reference_unit_rates=references[i],
            depth_factors=depth_factors[i],
            raw_multipliers=ratios[i],
            limits=limits[i],
            priors=priors,
            recommended=is_recommended[i],
            warnings=[warning.SerializeToString() for warning in warnings],
            **_scalars(advice, message.step, recommended, i),
        )
        answers.append(
            Answer(
                response.SerializeToString(),
                recommended.outcome_codes[i],
                response.next_measurement_step,
            )
        )
    return answers


def _scalars(advice: Advice, step: int, recommended: Recommendations, run: int) -> dict[str, Any]:
    """Return the fields of a response that hold one value, by name."""
    return {
        "step": step,
        "profile": advice.version_name,
        "digest": advice.info.digest,
        "next_measurement_step": recommended.next_measurement_steps[run],
        "stale": advice.stale,
        "probes": recommended.probes[run],
        "profile_step": recommended.profile_steps[run],
        "policy": advice.policy_name,
        "weight_decay": weight_decay_to_proto(advice.policy.weight_decay),
        "recipe": advice.recipe_name,
    }


def _warnings(
    advice: Advice,
    measurement: Measurement,
    profile_step: float,
    ratios: npt.NDArray[np.float64],
) -> list[advisor_service_pb2.Warning]:
    return warnings_of(advice.differences(measurement, profile_step, ratios))


def warnings_of(differences: Sequence[Difference]) -> list[advisor_service_pb2.Warning]:
    """Return the messages of differences."""
    return [
        advisor_service_pb2.Warning(
            kind=_WARNING_KINDS[difference.kind], message=difference.message
        )
        for difference in differences
    ]


def known_priors(priors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the priors, or an empty array if no group has one."""
    return priors if np.count_nonzero(priors) else priors[:0]


def _row_bytes(array: npt.NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row."""
    data, size = array.tobytes(), array.itemsize * array.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]
