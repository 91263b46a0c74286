"""Policies: the list of policies, the rules in which two differ, and replays of stored runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from advisor.advising.replay import ReplayedMeasurement
from advisor.report.words import format_rules, short_name
from fslr.advisor.v1 import policy_service_pb2
from fslr.profile_files import message_to_fields


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The latest version of a policy in a list.

    Attributes:
        policy: Short name of the version.
        create_time: When it was stored, UTC.
        rules: The rules that differ from the default, in words; None: they cannot be read.
    """

    policy: str
    create_time: datetime
    rules: str | None

    @classmethod
    def of(cls, version: policy_service_pb2.PolicyVersion) -> PolicyRow:
        """Return the row of a version."""
        return cls(
            short_name(version.name),
            version.create_time.ToDatetime(UTC),
            format_rules(version.policy) if version.HasField("policy") else None,
        )


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule that differs between two versions.

    Attributes:
        rule: The rule's name.
        old: The old value as plain data; None: not set.
        new: The new value as plain data; None: not set.
    """

    rule: str
    old: Any
    new: Any


def rule_changes(
    old: policy_service_pb2.PolicyVersion, new: policy_service_pb2.PolicyVersion
) -> list[RuleChange]:
    """Return the rules in which two versions differ."""
    before, after = (message_to_fields(version.policy, enum_words=True) for version in (old, new))
    return [
        RuleChange(rule, before.get(rule), after.get(rule))
        for rule in dict.fromkeys([*before, *after])
        if before.get(rule) != after.get(rule)
    ]


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One measurement of a stored run, answered under a different policy.

    Attributes:
        step: The measured step.
        changed: Number of groups whose multiplier changes by more than 1%.
        groups: Number of groups.
        largest_factor: Largest factor between old and new multipliers, at least 1.
        old_median: Median multiplier that was recommended.
        new_median: Median multiplier under the other policy.
        old_next_step: Step of the next measurement that was recommended.
        new_next_step: Step of the next measurement under the other policy.
    """

    step: int
    changed: int
    groups: int
    largest_factor: float
    old_median: float
    new_median: float
    old_next_step: int
    new_next_step: int

    @classmethod
    def of(cls, event: ReplayedMeasurement) -> ReplayRow:
        """Return the row of a replayed measurement."""
        before, after = event.before.multipliers, event.after.multipliers
        return cls(
            event.before.measurement.step,
            event.changed,
            len(before),
            event.largest_factor,
            float(np.median(before)),
            float(np.median(after)),
            event.before.next_measurement_step,
            event.after.next_measurement_step,
        )
