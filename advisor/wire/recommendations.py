"""Measurements to recommendations: decode (:mod:`.measurements`), recommend, encode.

The RPC decodes and encodes packed messages (:mod:`.packed`) and answers several runs at once; in
process the fields of the contract's own messages are read and set. The decisions are the same code,
and the answers bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.policy import InvalidValueError, Measurement, Measurements, Outcome, Recommendations
from advisor.wire import packed
from advisor.wire.measurements import (
    complete_measurements,
    measurement_from_proto,
    packed_measurement,
)
from advisor.wire.policies import weight_decay_to_proto
from advisor.wire.warnings import warnings_of
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
    measurements = complete_measurements(
        [request.measurement for request in batch],
        [request.opening.total_steps for request in batch],
        groups,
    )
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
        measurement = packed_measurement(request.measurement, request.opening)
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


def known_priors(priors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the priors, or an empty array if no group has one."""
    return priors if np.count_nonzero(priors) else priors[:0]


def _row_bytes(array: npt.NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row."""
    data, size = array.tobytes(), array.itemsize * array.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]
