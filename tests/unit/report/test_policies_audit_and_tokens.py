from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from advisor.advising.replay import AnsweredMeasurement, ReplayedMeasurement
from advisor.auth.roles import Role
from advisor.auth.tokens import TokenRecord
from advisor.policy import Measurement, Policy
from advisor.report.audit import AuditRow, audit_detail
from advisor.report.policies import PolicyRow, ReplayRow, RuleChange, rule_changes
from advisor.report.tokens import TokenRow
from advisor.report.words import format_percent, format_rules
from advisor.store.codec import encode_policy
from advisor.wire import policy_to_proto
from fslr.advisor.v1 import audit_service_pb2, policy_service_pb2

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def version(policy: Policy, number: int = 1) -> policy_service_pb2.PolicyVersion:
    found = policy_service_pb2.PolicyVersion(
        name=f"projects/default/policies/team@{number}", policy=policy_to_proto(policy)
    )
    found.create_time.FromDatetime(NOW)
    return found


def test_only_rules_that_differ_from_the_default_are_written() -> None:
    assert format_rules(policy_to_proto(Policy())) == "the defaults"
    assert format_rules(policy_to_proto(Policy(max_multiplier=4.0))) == "max_multiplier=4"


def test_a_policy_is_listed_with_its_rules() -> None:
    assert PolicyRow.of(version(Policy(slew_limit=2.0))) == PolicyRow("team@1", NOW, "slew_limit=2")
    unreadable = version(Policy())
    unreadable.ClearField("policy")
    assert PolicyRow.of(unreadable).rules is None


def test_rule_changes_name_the_rules_in_which_two_versions_differ() -> None:
    old, new = version(Policy(max_multiplier=4.0)), version(Policy(max_multiplier=2.0), 2)
    assert rule_changes(old, old) == []
    assert rule_changes(old, new) == [RuleChange("max_multiplier", 4.0, 2.0)]
    limited = version(Policy(max_multiplier=4.0, slew_limit=2.0))
    assert rule_changes(old, limited) == [RuleChange("slew_limit", None, 2.0)]


def test_a_replayed_measurement_compares_both_answers() -> None:
    measurement = Measurement(20, np.ones(3), np.zeros(3), np.ones(3))
    before = AnsweredMeasurement(measurement, np.array([1.0, 2.0, 4.0]), 45)
    after = SimpleNamespace(multipliers=np.array([1.0, 4.0, 1.0]), next_measurement_step=30)
    row = ReplayRow.of(ReplayedMeasurement(before, after))  # type: ignore[arg-type]
    assert row == ReplayRow(20, 2, 3, row.largest_factor, 2.0, 1.0, 45, 30)
    assert row.largest_factor == pytest.approx(4.0)


def test_a_digest_is_shortened_and_rules_are_written_in_words() -> None:
    assert audit_detail("register", "ab" * 32) == "abababababab"
    assert audit_detail("set alias", "1 -> 2") == "1 -> 2"
    known = encode_policy(Policy(max_multiplier=4.0)).decode()
    assert audit_detail("set policy", known) == "max_multiplier=4"


@pytest.mark.parametrize(("old", "new"), [("{", '{"new_rule":1,'), ("sum", "mean")])
def test_rules_of_a_newer_version_are_returned_unchanged(old: str, new: str) -> None:
    known = encode_policy(Policy()).decode()
    newer = known.replace(old, new, 1)
    assert newer != known
    assert audit_detail("set policy", newer) == newer
    assert audit_detail("set policy", "not JSON") == "not JSON"


def test_an_audit_event_has_time_actor_and_peer() -> None:
    event = audit_service_pb2.AuditEvent(
        actor="ann", peer="10.0.0.1", action="set alias", name="profiles/gpt@prod", detail="1 -> 2"
    )
    event.time.FromDatetime(NOW)
    assert AuditRow.of(event) == AuditRow(
        NOW, "ann", "10.0.0.1", "set alias", "profiles/gpt@prod", "1 -> 2"
    )


@pytest.mark.parametrize(
    ("hours", "expiry"),
    [
        (None, "never expires"),
        (1, "expires 2026-01-02 04:04 UTC"),
        (0, "expired 2026-01-02 03:04 UTC"),
    ],
)
def test_a_token_says_when_it_expires(hours: int | None, expiry: str) -> None:
    expires = None if hours is None else NOW + timedelta(hours=hours)
    record = TokenRecord("default", "0" * 12, "nightly", Role.TRAINER, "d", NOW, expires)
    row = TokenRow.of(record, NOW)
    assert row.expiry == expiry
    assert row.is_expired == expiry.startswith("expired")
    assert (row.token_id, row.name, row.role) == ("0" * 12, "nightly", "trainer")


def test_percent_is_written_with_the_given_digits() -> None:
    assert (format_percent(0.125), format_percent(0.125, digits=1)) == ("12%", "12.5%")
