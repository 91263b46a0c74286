"""The checks of a parametrization find what is wrong, and pass what is right."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from advisor.report.check import CheckRow, Status, check_rows, rates_across_widths, width_of
from advisor.report.check_sentences import check_counts, check_finding, check_remedy
from advisor.report.checked_run import MAX_MEASUREMENTS, CheckedRun
from advisor.report.texts import Texts
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, run_service_pb2

ENGLISH = Texts("en")
NAMES = ("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "head.weight", "head.bias")
KINDS = (
    *(layout_pb2.GROUP_KIND_EMBEDDING, layout_pb2.GROUP_KIND_HIDDEN, layout_pb2.GROUP_KIND_HIDDEN),
    *(layout_pb2.GROUP_KIND_READOUT, layout_pb2.GROUP_KIND_VECTOR),
)
CHECKS = (
    "rates-follow-profile",
    "no-group-dominates",
    "no-group-is-dead",
    "learning-rates-are-usual",
    "decay-time-scales-are-usual",
    "schedule-takes-effect",
)


def checked(
    name: str = "narrow",
    *,
    width: int = 64,
    measurements: int = 20,
    rate: Any = 1.0,
    fixed_step: bool = False,
    update: float = 1.0,
    share: float = 0.2,
    learning_rate: float = 0.01,
    decay: float = 1e-4,
) -> CheckedRun:
    """Return a run whose learning rate falls to a tenth, and whose rates are the profile's."""
    groups = [
        layout_pb2.Group(
            name=group, kind=kind, shape=[width] * (1 if "bias" in group else 2),
            parameter_count=width if "bias" in group else width**2, fan_in=width, fan_out=width,
        )
        for group, kind in zip(NAMES, KINDS, strict=True)
    ]  # fmt: skip
    run = run_service_pb2.Run(name=f"projects/p/runs/{name}")
    run.opening.total_steps = 1_000
    run.opening.layout.groups.extend(groups)
    events = []
    for place in range(measurements):
        scheduled = learning_rate * 10 ** -(place / max(measurements - 1, 1))
        size = update * learning_rate / scheduled if fixed_step else update
        events.append(
            run_service_pb2.RunEvent(
                measurement=pb.Measurement(
                    step=10 * place,
                    unit_rates=np.ones(5) * rate,
                    multipliers=[1.0] * 5,
                    learning_rates=[scheduled] * 5,
                    shares=[share, *[(1 - share) / 4] * 4],
                    weight_rms=[0.5] * 5,
                    update_rms=[size] * 5,
                    weight_decays=[0, *[decay] * 3, 0],
                ),
                recommendation=pb.RecommendLRResponse(reference_unit_rates=[1.0] * 5),
            )
        )
    return CheckedRun.of(run, events)


def results(runs: list[CheckedRun]) -> dict[str, CheckRow]:
    return {row.check: row for row in check_rows(runs)}


def test_a_good_run_passes_all_of_its_checks() -> None:
    rows = check_rows([checked(), checked("wide", width=256)])
    assert [(row.check, row.run) for row in rows] == [
        *((check, run) for run in ("narrow", "wide") for check in CHECKS),
        ("rates-flat-across-widths", ""),
    ]
    assert {row.status for row in rows} == {Status.PASS}
    assert not any(check_remedy(row, ENGLISH) for row in rows)
    assert check_counts(rows, ENGLISH) == "13 passed, 0 failed, 0 without enough data."


@pytest.mark.parametrize(
    ("check", "wrong", "words"),
    [
        ("rates-follow-profile", {"rate": [1, 4, 4, 1, 1]}, "blocks.*.up.weight is 4 times"),
        ("rates-follow-profile", {"rate": [1, 1, 1, 0.4, 1]}, "head.weight is 0.4 times"),
        ("no-group-dominates", {"share": 0.9}, "that of embed.weight: 90% of the squared"),
        (
            "no-group-is-dead",
            {"rate": [1, 0, 1, 1, 0]},
            "3 of 5 groups move the outputs. 2 did not in most",
        ),
        ("learning-rates-are-usual", {"update": 50.0}, "4 of 4 matrices are outside"),
        ("learning-rates-are-usual", {"update": 1e-5}, "Usual is 1e-06 to 0.1"),
        ("decay-time-scales-are-usual", {"decay": 0.2}, "is 5 steps (blocks.0.up.weight), 0.005"),
        ("schedule-takes-effect", {"fixed_step": True}, "the size of steps by 1. All steps have"),
    ],
)
def test_each_check_fails_alone(check: str, wrong: dict[str, Any], words: str) -> None:
    rows = results([checked(**wrong)])
    assert words in check_finding(rows[check], ENGLISH)
    assert check_remedy(rows[check], ENGLISH)
    japanese = Texts("ja")
    for row in rows.values():  # every sentence has its values in each language
        numbers = set(re.findall(r"[-+]?\d+(?:\.\d+)?", check_finding(row, ENGLISH)))
        assert numbers <= set(re.findall(r"[-+]?\d+(?:\.\d+)?", check_finding(row, japanese)))
        assert bool(check_remedy(row, japanese)) == (row.status is Status.FAIL)
    assert [name for name, row in rows.items() if row.status is Status.FAIL] == [check]


def test_a_long_list_of_names_is_cut_in_each_language() -> None:
    names = tuple(f"h.{i}" for i in range(5))
    row = CheckRow(
        "no-group-is-dead", "r", Status.FAIL, {"moving": 0, "groups": 5, "off": 5, "names": names}
    )
    assert check_finding(row, ENGLISH).endswith("measurements: h.0, h.1, h.2 and 2 more.")
    assert "h.0、h.1、h.2、他2件" in check_finding(row, Texts("ja"))


def test_rates_that_grow_with_the_width_fail() -> None:
    def across(power: float, widths: tuple[int, ...]) -> CheckRow:
        return rates_across_widths([
            checked(str(width), width=width, rate=[1, *[(width / 64) ** power] * 2, 1, 1])
            for width in widths
        ])

    failed = across(1.0, (64, 128, 512))
    assert failed.status is Status.FAIL
    finding = check_finding(failed, ENGLISH)
    assert "Over 3 runs and 8 times the width" in finding
    assert "blocks.*.up.weight changes most, with the power +1.00" in finding
    assert across(-0.5, (64, 256)).status is Status.FAIL
    assert across(0.2, (64, 512)).status is Status.PASS
    assert across(0.4, (64, 128)).status is Status.PASS  # 32 %, which may be noise
    for widths in ((64, 80), (64,)):
        assert across(1.0, widths).status is Status.NOT_ENOUGH_DATA


def test_runs_of_which_one_has_no_learning_rates_are_compared_by_unit_rates() -> None:
    without = replace(checked("without", width=256), learning_rates=None)
    row = rates_across_widths([checked(width=64), without])
    assert (row.status, row.values["power"]) == (Status.PASS, "+0.00")


def test_checks_without_enough_data_say_what_they_need() -> None:
    for measurements in (0, 1, 2):
        rows = check_rows([checked(measurements=measurements)])
        assert {row.status for row in rows} == {Status.NOT_ENOUGH_DATA}
        assert all(check_finding(row, ENGLISH).startswith("It needs ") for row in rows)
    plain = checked()
    bare = run_service_pb2.Run(name="projects/p/runs/bare")
    bare.opening.layout.groups.extend(layout_pb2.Group(name=name) for name in NAMES)
    event = run_service_pb2.RunEvent(measurement=pb.Measurement(unit_rates=[1] * 5))
    other = run_service_pb2.RunEvent(measurement=pb.Measurement(unit_rates=[1] * 4))
    run = CheckedRun.of(bare, [event, other] * 5)  # another layout had 4 groups
    assert len(run.steps) == 5
    assert width_of(run) is None
    rows = check_rows([run, plain])
    found = {row.check: row.status for row in rows if row.run == "bare"}
    assert found.pop("no-group-is-dead") is Status.PASS
    assert set(found.values()) == {Status.NOT_ENOUGH_DATA}
    assert rows[-1].status is Status.NOT_ENOUGH_DATA


def test_long_histories_are_sampled_regularly() -> None:
    run = checked(measurements=1_000)
    assert MAX_MEASUREMENTS / 2 < len(run.steps) <= MAX_MEASUREMENTS
    assert len(set(np.diff(run.steps))) == 1
    assert run.steps[0] == 0
    assert run.steps[-1] > 9_800
