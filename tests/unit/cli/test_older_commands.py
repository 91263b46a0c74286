"""What a newer service says is shown by the commands as far as they know it."""

from __future__ import annotations

from typing import Any

from advisor.cli.audit import _detail
from advisor.cli.mapping import _rows
from advisor.cli.run import _groups_table, _history_row
from advisor.policy import Policy
from advisor.store.codec import encode_policy
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, run_service_pb2
from tests.building import opening_message

NEWER: Any = max(policy_pb2.Outcome.values()) + 7


def event() -> run_service_pb2.RunEvent:
    """Return an event of one group with an outcome that is not known here."""
    return run_service_pb2.RunEvent(
        measurement=advisor_service_pb2.Measurement(unit_rates=[1.0]),
        recommendation=advisor_service_pb2.RecommendLRResponse(
            multipliers=[1.0], reference_unit_rates=[1.0], outcomes=[NEWER]
        ),
    )


def test_an_outcome_that_is_not_known_is_shown_as_its_number() -> None:
    opening = opening_message("projects/default/profiles/gpt", ["a"])
    assert _history_row(event())[-1] == f"1 {NEWER}"
    table = _groups_table(run_service_pb2.Run(opening=opening), event())
    assert list(table.columns[-1].cells) == [str(NEWER)]
    request = advisor_service_pb2.RecommendLRRequest(
        opening=opening, measurement=event().measurement
    )
    assert _rows(request, event().recommendation)[0]["outcome"] == str(NEWER)


def test_rules_that_are_not_known_are_shown_as_they_are() -> None:
    known = encode_policy(Policy(max_multiplier=4.0)).decode()
    assert _detail("set policy", known) == "max_multiplier=4"
    for newer in (known.replace("{", '{"new_rule":1,', 1), known.replace("sum", "mean"), "rules"):
        assert newer != known
        assert _detail("set policy", newer) == newer
