"""The short form of ``make fuzz``: some thousand odd messages to a service of their own."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.campaign import Campaign
from tests.fuzz.methods import all_methods

INPUTS = 5_000


def test_no_message_crashes_the_service_or_meets_a_defect_of_it(tmp_path: Path) -> None:
    report = Campaign(INPUTS, seed=7, seconds=60, folder=tmp_path, heavy=False).run()
    assert report.complaints == []
    assert (report.internal, report.crashes, report.unexpected) == (0, 0, 0)
    assert report.inputs == INPUTS
    assert set(report.codes) == {method.short for method in all_methods()}
    # Deep enough: each method also does what it is there for.
    assert {method for method, codes in report.codes.items() if codes["OK"] == 0} <= {
        "RunService/WatchRun"  # it ends when its caller leaves
    }
    assert not report.failed


def test_no_token_crashes_the_service_opens_it_or_is_logged(tmp_path: Path) -> None:
    report = Campaign(
        2_000, seed=8, seconds=60, folder=tmp_path, heavy=False, authenticate=True
    ).run()
    assert report.complaints == []
    assert not report.failed
    for codes in report.codes.values():  # each method was refused to some, and to none alone
        assert codes["UNAUTHENTICATED"] + codes["PERMISSION_DENIED"] > 0
    assert sum(codes["OK"] > 0 for codes in report.codes.values()) > len(report.codes) / 2
