"""Reading records of the transfer benchmark: their case, and the losses of their sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import number
from benchmarks.transfer.cases import CHOOSING, Case
from benchmarks.transfer.curves import Interval, Losses

CASE_KEYS = (
    "axis",
    "model",
    "optimizer",
    "base",
    "big",
    "base_steps",
    "steps",
    "seeds",
    "weight_decay",
)

Record = dict[str, Any]


def identity(case: Case) -> Record:
    """Return the part of a case's records that does not depend on its results.

    Args:
        case: The case.
    """
    return {
        "axis": case.axis,
        "model": case.model,
        "optimizer": case.optimizer,
        "base": case.base.text,
        "big": case.big.text,
        "base_steps": case.steps_of_base,
        "steps": case.steps,
        "seeds": list(case.seeds),
        "weight_decay": case.weight_decay,
    }


def by_learning_rate(losses: Losses) -> dict[str, list[float | None]]:
    """Return losses by learning rate, the highest first; None for trainings that diverged."""
    return {
        repr(2.0**octave): [loss if math.isfinite(loss) else None for loss in losses[octave]]
        for octave in sorted(losses, reverse=True)
    }


def losses_of(record: Mapping[str, Any]) -> dict[float, list[float]]:
    """Return the losses of a record's sweep by octave; infinite for trainings that diverged.

    Args:
        record: The record of a base or of a method.
    """
    return {
        _octave_of(learning_rate): [math.inf if loss is None else loss for loss in losses]
        for learning_rate, losses in record["sweep"].items()
    }


def whole_octaves(losses: Losses) -> dict[int, Sequence[float]]:
    """Return the losses at whole octaves."""
    return {int(octave): each for octave, each in losses.items() if octave == int(octave)}


def _octave_of(learning_rate: str) -> float:
    """Return log2 of a learning rate, exact for the steps of sweeps."""
    return round(math.log2(float(learning_rate)), 6)


def same_case(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two records are of the same case, with the same sizes and seeds."""
    return all(one.get(key) == other.get(key) for key in CASE_KEYS)


def base_of(case: Mapping[str, Any], bases: Sequence[Record]) -> Record | None:
    """Return the record of a case's base; None if it has none.

    Args:
        case: A record of the case, or its :func:`identity`.
        bases: The records of bases.
    """
    return next((each for each in bases if same_case(each, case)), None)


def methods_of(case: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Record]:
    """Return the records of a case's methods, by the method's name.

    Args:
        case: A record of the case, or its :func:`identity`.
        records: The records of cases and methods.
    """
    return {each["method"]: each for each in records if same_case(each, case)}


def as_list(interval: Interval | None) -> list[float] | None:
    """Return an interval as records have it."""
    return None if interval is None else list(interval)


def case_name(record: Mapping[str, Any]) -> str:
    """Return axis, model and optimizer of a record, as :attr:`Case.name` has them."""
    return f"{record['axis']} {record['model']} {record['optimizer']}"


def is_choosing(record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a case that chooses the default method.

    The other cases make the claim.

    Args:
        record: The record of a base or of a method.
    """
    return case_name(record) in CHOOSING


def with_interval(record: Mapping[str, Any], key: str, form: str) -> str:
    """Return a figure with its 90% interval, if it is known; ``diverged`` if there is none.

    Args:
        record: The record of a method, or of a difference of two.
        key: ``shift``, ``regret`` or ``difference``.
        form: How to format the numbers.
    """
    interval = record[f"{key}_interval"]
    figure = "diverged" if record[key] is None else number(record[key], form)
    return figure if interval is None else f"{figure} [{interval[0]:{form}}, {interval[1]:{form}}]"
