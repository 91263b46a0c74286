"""What differs between two versions of a profile, or between two profiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from advisor.policy import Policy
from advisor.policy.counts import count_of
from advisor.report.profiles import names_only_in
from advisor.report.words import format_number, short_name
from advisor.wire import policy_to_proto
from fslr.advisor.v1 import profile_pb2
from fslr.profile_files import message_to_fields

_MAX_LISTED_VALUES = 4


@dataclass(frozen=True, slots=True)
class ChangedFact:
    """A fact that differs.

    Attributes:
        label: What differs, such as ``provenance commit``.
        old: The old value as plain data; None: not given.
        new: The new value as plain data; None: not given.
    """

    label: str
    old: Any
    new: Any

    def words(self) -> tuple[str, str]:
        """Return both values in as few digits as show that they differ."""
        old, new = _word(self.old), _word(self.new)
        if old != new:
            return old, new
        if isinstance(self.old, list) and isinstance(self.new, list):
            pairs = zip(_values(self.old), _values(self.new), strict=False)
            count = sum(a != b for a, b in pairs)
            return old, f"{old}, {count} of them different"
        return repr(self.old), repr(self.new)


@dataclass(frozen=True, slots=True)
class ChangedRateRow:
    """The unit rates of a group that both profiles have.

    Attributes:
        group: The group's name.
        old_median: Median old unit rate over the common steps, in output units per learning rate.
        new_median: Median new unit rate over the common steps, in output units per learning rate.
        ratios: New rate divided by old rate at each common step; None: the old rate is zero.
    """

    group: str
    old_median: float
    new_median: float
    ratios: tuple[float | None, ...]

    @property
    def ratio(self) -> float | None:
        """Ratio of the median rates; None: the old one is zero."""
        return self.new_median / self.old_median if self.old_median > 0 else None


@dataclass(frozen=True, slots=True)
class ProfileDifference:
    """What differs between two versions.

    Attributes:
        old: Short name of the old version.
        new: Short name of the new version.
        is_same: Whether both have the same content.
        facts: What differs apart from unit rates.
        rates: The unit rates of the common groups; empty if no step is recorded in both.
        only_old: Names of the groups that only the old version has.
        only_new: Names of the groups that only the new version has.
    """

    old: str
    new: str
    is_same: bool
    facts: tuple[ChangedFact, ...]
    rates: tuple[ChangedRateRow, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]


def profile_difference(old: profile_pb2.Profile, new: profile_pb2.Profile) -> ProfileDifference:
    """Return what differs between two versions."""
    return ProfileDifference(
        short_name(old.name),
        short_name(new.name),
        old.digest == new.digest,
        tuple(_changed_facts(old.content, new.content)),
        tuple(_changed_rates(old.content, new.content)),
        tuple(names_only_in(old.content, new.content)),
        tuple(names_only_in(new.content, old.content)),
    )


def _changed_facts(
    old: profile_pb2.ProfileContent, new: profile_pb2.ProfileContent
) -> Iterator[ChangedFact]:
    flat = dict(_flat(old)), dict(_flat(new))
    if bool(old.policy_name) != bool(new.policy_name):
        # Only one of them has its own rules; those that equal the default are left out.
        defaults = dict(_flat(profile_pb2.ProfileContent(policy=policy_to_proto(Policy()))))
        for facts in flat:
            for key in [key for key in facts if key.startswith("policy ") and key != "policy name"]:
                if facts[key] == defaults.get(key):
                    del facts[key]
    for label in dict.fromkeys([*flat[0], *flat[1]]):
        values = flat[0].get(label), flat[1].get(label)
        if values[0] != values[1]:
            yield ChangedFact(label, *values)


def _flat(content: profile_pb2.ProfileContent) -> Iterator[tuple[str, Any]]:
    """Yield all facts of a profile apart from unit rates, with their labels."""
    fields = message_to_fields(content, enum_words=True)
    layout, points = fields.pop("layout", {}), fields.pop("points", [])
    groups = layout.get("groups", [])
    fields["groups"] = len(groups)
    fields["order_of_groups"] = [group["name"] for group in groups]
    for name in ("role_templates", "frozen_names", "frozen_parameter_counts"):
        fields[name] = layout.get(name, [])
    fields["initial_rms"] = [group.get("initial_rms") for group in groups]
    fields["recorded_steps"] = [point["step"] for point in points]
    for name in (
        *("learning_rate", "relative_errors", "coherences", "spreads"),
        *("weight_rms", "update_rms"),
    ):
        fields[f"points_{name}"] = [point.get(name) for point in points]
    for key, value in fields.items():
        label = key.replace("_", " ")
        if isinstance(value, dict):
            for inner, entry in value.items():
                yield f"{label} {inner.replace('_', ' ')}", entry
        else:
            yield label, value
    for group in groups:
        facts = {k: v for k, v in group.items() if k not in {"name", "initial_rms"}}
        yield f"group {group['name']}", ", ".join(f"{k} {v}" for k, v in facts.items())


def _changed_rates(
    old: profile_pb2.ProfileContent, new: profile_pb2.ProfileContent
) -> Iterator[ChangedRateRow]:
    old_points = {point.step: point for point in old.points}
    new_points = {point.step: point for point in new.points}
    common = sorted(old_points.keys() & new_points.keys())
    positions = {group.name: i for i, group in enumerate(new.layout.groups)}
    for i, group in enumerate(old.layout.groups):
        if group.name not in positions or not common:
            continue
        j = positions[group.name]
        pairs = [(old_points[s].unit_rates[i], new_points[s].unit_rates[j]) for s in common]
        middle = len(pairs) // 2
        yield ChangedRateRow(
            group.name,
            sorted(a for a, _ in pairs)[middle],
            sorted(b for _, b in pairs)[middle],
            tuple(b / a if a > 0 else None for a, b in pairs),
        )


def _values(nested: Any) -> list[Any]:
    if not isinstance(nested, list):
        return [nested]
    return [value for item in nested for value in _values(item)]


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return format_number(value)
    if not isinstance(value, list):
        return str(value)
    flat = [item for item in _values(value) if item is not None]
    is_nested = any(isinstance(item, (list, dict)) for item in value)
    if len(flat) <= _MAX_LISTED_VALUES and not is_nested:
        return ", ".join(map(_word, flat)) or "-"
    numbers = [item for item in flat if isinstance(item, (int, float))]
    if len(numbers) < len(flat):
        return count_of(len(flat), "entry")
    return f"{count_of(len(flat), 'value')}, median {format_number(statistics.median(numbers))}"
