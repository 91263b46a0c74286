"""How values are written for people: numbers, enum values, names and rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from advisor.policy import Limit, Policy
from advisor.wire import policy_to_proto
from fslr.advisor.v1 import layout_pb2, policy_pb2
from fslr.profile_files import message_to_fields

_OUTCOME_SENTENCES = {
    policy_pb2.OUTCOME_MATCHED: "The multiplier follows the measurement.",
    policy_pb2.OUTCOME_CLAMPED: "The multiplier was outside the policy's bounds and was set to the "
    "nearer one.",
    policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE: "The relative error is above the policy's limit, so "
    "the multiplier stays.",
    policy_pb2.OUTCOME_HELD_ZERO_RATE: "The measured or the reference rate is zero, so the "
    "multiplier stays.",
    policy_pb2.OUTCOME_UNMATCHED: "The profile has no matching group, so the multiplier stays.",
    policy_pb2.OUTCOME_HELD_FROZEN: "The policy no longer changes multipliers at this step, so the "
    "multiplier stays.",
    policy_pb2.OUTCOME_LIMITED: "The change of the multiplier was shortened by the limits that are "
    "listed with it.",
    policy_pb2.OUTCOME_PRIOR: "The group is not measured yet, so the multiplier is its "
    "prior, or 1.",
}

_EXPONENT = re.compile(r"(?<=\de-)(?=\d)")
_PIECE = re.compile(r"(?:[^./]|(?<=\d)\.(?=\d))+[./]*|[./]+")  # not inside of 0.05
_LONG, _PIECE_OF_LONG = 16, re.compile(r"[^_]*_+|[^_]+")

_LIMIT_SENTENCES = {
    Limit.MIN_MULTIPLIER: "The multiplier was below `min_multiplier`.",
    Limit.MAX_MULTIPLIER: "The multiplier was above `max_multiplier`.",
    Limit.SLEW: "The change was larger than `slew_limit` or `rise_limit` allows.",
    Limit.DAMPING: "The linearity error is above `max_linearity_error`, which shortens the "
    "increase.",
    Limit.CONFIDENCE: "The change is not far above the noise, which shortens it "
    "(`weigh_by_confidence`).",
    Limit.AVERAGING: "The multiplier is an average over the training so far (`averaging_window`).",
    Limit.CORRECTION: "The multiplier stays near its prior (`correction_bound`, "
    "`lower_correction_bound`).",
    Limit.RELATIVE_UPDATE: "The update would be too large beside the weights "
    "(`max_relative_update`).",
    Limit.ROUNDING: "The multiplier was rounded within its noise (`multiplier_values_per_octave`).",
}

METRIC_DIGITS = 6
"""Significant digits of a run's own metrics, some of which change little."""
_MAX_PLAIN = 1e7  # numbers from here on have an exponent

NO_RULES = "the defaults"
"""How rules are written that all have their default values."""


def format_number(value: float, digits: int = 4) -> str:
    """Return a number, such as ``0.05``, ``12350`` or ``5.9e-05``; the scripts write them alike.

    Args:
        value: The number.
        digits: Number of significant digits.
    """
    text = f"{value:.{digits}g}"
    rounded = float(text)
    return f"{rounded:.0f}" if "e+" in text and abs(rounded) < _MAX_PLAIN else text


def whole_numbers(text: str) -> str:
    """Return a text whose lines do not end inside of numbers such as ``5.9e-05``."""
    return _EXPONENT.sub("\u2060", text)


def format_percent(ratio: float, *, digits: int = 0) -> str:
    """Return a ratio in percent.

    Args:
        ratio: The ratio; 1 is 100%.
        digits: Number of digits after the point.
    """
    text = f"{ratio:.{digits}%}"
    return text if text.strip("-0.%") else text.removeprefix("-")


def enum_word(kind: Any, value: int) -> str:
    """Return an enum value in lower case with spaces, or its number if it is not known here.

    Args:
        kind: The generated enum.
        value: The number.
    """
    known = kind.DESCRIPTOR.values_by_number.get(value)
    if known is None:
        return str(value)
    prefix = kind.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name).removeprefix(prefix).lower().replace("_", " ")


def kind_word(kind: int) -> str:
    """Return a kind of group in words, such as ``adapter a``; empty: unknown."""
    return enum_word(layout_pb2.GroupKind, kind) if kind else ""


def format_tensor(kind: str, shape: Sequence[int]) -> str:
    """Return kind and shape of a tensor, such as ``hidden 192x48``; unknown parts are left out.

    Args:
        kind: The kind in words; empty: unknown.
        shape: Its size along each dimension; empty: unknown, or a scalar.
    """
    return " ".join(filter(None, (kind, "x".join(map(str, shape)))))


def outcome_word(outcome: int) -> str:
    """Return an outcome in a few words, such as ``held zero rate``."""
    return enum_word(policy_pb2.Outcome, outcome)


def outcome_sentence(outcome: int) -> str:
    """Return what an outcome means, in a sentence."""
    sentence = _OUTCOME_SENTENCES.get(policy_pb2.Outcome.ValueType(outcome))
    return sentence or f"Outcome {outcome} is defined by a newer service."


def limit_word(limit: Limit) -> str:
    """Return a limit in words, such as ``max multiplier``."""
    return str(limit.name).lower().replace("_", " ")


def limit_sentence(limit: Limit) -> str:
    """Return what a limit does, in a sentence."""
    return _LIMIT_SENTENCES.get(limit) or f"Limit {limit.value} is defined by a newer service."


def short_name(resource_name: str) -> str:
    """Return the last segment of a resource name."""
    return resource_name.rsplit("/", 1)[-1]


def name_pieces(name: str) -> list[str]:
    """Return the pieces of a parameter's name, after each of which a line may end.

    They end at dots and slashes, but not inside of numbers, and in long parts also at underscores.

    Args:
        name: The name, such as ``blocks.3.attn_norm.weight``.
    """
    return [
        piece
        for part in _PIECE.findall(name)
        for piece in (_PIECE_OF_LONG.findall(part) if len(part) > _LONG else [part])
    ]


def format_rules(policy: policy_pb2.Policy) -> str:
    """Return the rules that differ from the default, or ``the defaults``."""
    defaults = message_to_fields(policy_to_proto(Policy()), enum_words=True)
    rules = message_to_fields(policy, enum_words=True)
    changed = {name: value for name, value in rules.items() if value != defaults.get(name)}
    return ", ".join(f"{name}={format_rule(value)}" for name, value in changed.items()) or NO_RULES


def format_rule(value: object) -> str:
    """Return a rule's value; numbers have four significant digits."""
    if isinstance(value, str):
        return value
    return format_number(value) if isinstance(value, float) else str(value).lower()
