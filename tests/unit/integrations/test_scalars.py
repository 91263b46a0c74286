"""The numbers that trackers keep, and what keeps them from harming a training."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fslr import Event, Measured
from fslr.integrations.mlflow import MlflowListener
from fslr.integrations.progress import ProgressListener
from fslr.integrations.scalars import Scalars
from fslr.integrations.tensorboard import TensorBoardListener
from fslr.integrations.wandb import WandbListener
from tests.unit.integrations.listened_training import LEARNING_RATE, MEASURED, NAMES, STEPS, train

_ROOT = Path(__file__).parents[3]
_OF_A_MEASUREMENT = {
    *("total_rate", "linearity_error", "relative_error", "measuring_s", "overhead"),
    *(f"{what}/{name}" for what in ("rate", "share", "learning_rate") for name in NAMES),
}
_OF_AN_ANSWER = {
    *("multiplier_min", "multiplier_median", "multiplier_max", "held_groups"),
    *(f"multiplier/{name}" for name in NAMES),
}


def numbers(
    events: list[Event], scalars: Scalars | None = None
) -> list[tuple[int, dict[str, float]]]:
    """Return the numbers of each event that brings any, with its step."""
    scalars = scalars or Scalars()
    found = [(event.step, scalars.of(event)) for event in events]
    return [(step, values) for step, values in found if values]


def test_each_measurement_and_each_answer_has_its_numbers() -> None:
    done = train()
    found = numbers(done.events)
    names = {name.removeprefix("fslr/") for _, values in found for name in values}
    assert names == _OF_A_MEASUREMENT | _OF_AN_ANSWER | {"warnings", "failures"}
    measured = [(s, v) for s, v in found if "fslr/measuring_s" in v]
    assert [step for step, _ in measured] == MEASURED
    for (_, values), sent in zip(measured, done.advisor.measurements, strict=True):
        assert sum(values[f"fslr/share/{name}"] for name in NAMES) == pytest.approx(1.0)
        for name, unit_rate, multiplier in zip(
            NAMES, sent.unit_rates, sent.multipliers, strict=True
        ):
            effective = values[f"fslr/learning_rate/{name}"]
            assert effective == pytest.approx(LEARNING_RATE * multiplier)
            assert values[f"fslr/rate/{name}"] == pytest.approx(unit_rate * effective, rel=1e-6)
    assert measured[-1][1]["fslr/learning_rate/2.bias"] == pytest.approx(4 * LEARNING_RATE)
    answers = [values for _, values in found if "fslr/multiplier_min" in values]
    assert [values["fslr/multiplier_median"] for values in answers] == [1.5, 1.5]
    assert answers[0]["fslr/multiplier/2.bias"] == answers[0]["fslr/multiplier_max"] == 4.0
    assert (STEPS - 1, {"fslr/failures": 1.0}) in found
    assert [values["fslr/warnings"] for _, values in found if "fslr/warnings" in values] == [1.0]


def test_a_recording_has_the_numbers_of_its_measurements() -> None:
    found = numbers(train(record=True).events)
    assert {name.removeprefix("fslr/") for _, values in found for name in values} == (
        _OF_A_MEASUREMENT | {"warnings"}  # a recorder without a provenance warns
    )


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [((), []), (("2.*",), NAMES[2:]), ("*.bias", [NAMES[1], NAMES[3]]), (("none",), [])],
)
def test_groups_are_chosen_by_pattern(patterns: tuple[str, ...], kept: list[str]) -> None:
    found = numbers(train().events, Scalars(patterns, prefix="a/"))
    (_, values), *_ = [each for each in found if "a/measuring_s" in each[1]]
    assert [name[len("a/rate/") :] for name in values if name.startswith("a/rate/")] == kept


def test_every_number_is_in_the_table_of_the_page() -> None:
    page = (_ROOT / "docs" / "how-to" / "log-to-trackers.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `fslr/([a-z_/]+)(?:GROUP)?` \|", page, re.MULTILINE))
    found = {
        re.sub(rf"/({'|'.join(map(re.escape, NAMES))})$", "/", name.removeprefix("fslr/"))
        for _, values in numbers(train().events)
        for name in values
    }
    assert listed == found


def test_numbers_that_are_not_finite_are_left_out() -> None:
    (event, *_) = [each for each in train().events if isinstance(each, Measured)]
    event.estimate.unit_rates[0] = float("inf")
    assert "fslr/rate/0.weight" not in Scalars().of(event)
    assert "fslr/rate/0.bias" in Scalars().of(event)


class Fails:
    """What a tracker's client looks like once its connection is lost."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_arguments: object, **_options: object) -> None:
            raise ConnectionError(f"{name}: the tracker is gone")

        return fail

    def define_metric(self, *_arguments: object, **_options: object) -> None:
        """Accept the names at the start."""


@pytest.mark.parametrize(
    "make", [lambda: TensorBoardListener(Fails()), lambda: WandbListener(Fails())]
)
def test_a_tracker_that_fails_does_not_change_the_training(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    expected = train()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fslr"):
        done = train(make())
    assert all((a == b).all() for a, b in zip(done.weights, expected.weights, strict=True))
    assert list(map(type, done.events)) == list(map(type, expected.events))
    messages = [record.getMessage() for record in caplog.records]
    assert (
        sum("Listener object" in message and "failed at step 0" in message for message in messages)
        == 1
    )


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [
        (lambda: TensorBoardListener("runs"), "tensorboard", "tensorboard"),
        (WandbListener, "wandb", "wandb"),
        (MlflowListener, "mlflow-skinny", "mlflow"),
        (ProgressListener, "rich", "progress"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    make: Callable[[], object], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    message = rf"needs {package} [\d.]+ or newer: pip install 'fslr-advisor\[{extra}\]'"
    with pytest.raises(ImportError, match=message):
        make()
