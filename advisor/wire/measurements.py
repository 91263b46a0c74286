"""Measurements from messages: those of the contract, packed ones, and batches of packed ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advisor.advising.opening import Opening
from advisor.policy import InvalidValueError, Measurement, Measurements
from advisor.policy.measurement import ARRAY_RANGES, NUMBER_RANGES, check_array
from advisor.registry.profiles import check_words
from advisor.wire import packed
from advisor.wire.field_paths import field_path
from fslr.advisor.v1 import advisor_service_pb2

_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")
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


def packed_measurement(message: Any, opening: Opening) -> Measurement:
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


def complete_measurements(
    messages: Sequence[Any], total_steps: Sequence[int], groups: int
) -> Measurements | None:
    """Return packed messages as rows if all are complete and in range, else None.

    Args:
        messages: The packed measurements.
        total_steps: Planned steps of each message's run; 0: unknown.
        groups: Number of groups of their layouts.
    """
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
        total_steps=total_steps,
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
