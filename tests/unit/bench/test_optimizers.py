"""Optimizers are judged by what their steps did, and the table names each that is not right."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.optimizers import building, command
from benchmarks.optimizers.packages import PACKAGES
from benchmarks.optimizers.trial import STEPS, TOLERANCE, Outcome, try_optimizer
from benchmarks.report.optimizers import optimizers as optimizers_table
from benchmarks.report.paths import FIGURES
from benchmarks.report.stored import load_figures

_STORED = Path(__file__).parents[3] / FIGURES
_PACKAGES = {
    *("torch.optim", "pytorch_optimizer", "schedulefree", "prodigyopt", "lion-pytorch"),
    *("bitsandbytes", "torchao", "heavyball"),
}


def test_the_command_tells_where_multipliers_act_and_names_missing_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version_of(package: str) -> str | None:
        return "2.0" if package == "torch.optim" else None

    monkeypatch.setattr(command, "installed_version", version_of)
    arguments = [
        "--name",
        "Adam",
        "--name",
        "Rprop",
        "--name",
        "LBFGS",
        "--processes",
        "0",
        "--json",
    ]
    result = CliRunner().invoke(app, ["optimizers", *arguments])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["packages"]["schedulefree"]["missing"] == "not installed"
    outcomes = {each["name"]: each for each in figures["packages"]["torch.optim"]["optimizers"]}
    assert {name: each["where"] for name, each in outcomes.items()} == {
        "Adam": "learning rates",
        "LBFGS": "refused",
        "Rprop": "update",
    }
    for name in ("Adam", "Rprop"):
        assert outcomes[name]["measured"]
        assert outcomes[name]["deviation"] <= TOLERANCE
    page = optimizers_table(figures)
    assert "| `torch.optim` 2.0 | learning rates | Adam |" in page
    assert "| `schedulefree` | not installed |" in page
    assert "| `torch.optim` | LBFGS | it steps along one direction" in page


def test_each_optimizer_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(_: str, name: str) -> Outcome:
        if name == "Bad":
            os._exit(3)
        return outcome_of(name)

    monkeypatch.setattr(command, "try_optimizer", crashing)
    found = list(command._in_processes("torch.optim", ["Good", "Bad", "Better"], 2, 60))
    reasons = {outcome["name"]: outcome["reason"] for outcome in found}
    assert reasons == {"Good": "", "Bad": "its process ends with the status 3", "Better": ""}


def test_an_optimizer_that_takes_too_long_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "try_optimizer", lambda *_: time.sleep(60))
    (found,) = command._in_processes("torch.optim", ["Slow"], 1, 0)
    assert (found["where"], found["reason"]) == ("not judged", "it takes more than 0 s")


def test_multipliers_that_are_reported_and_not_applied_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fslr.torch.steps.scaling.is_linear", lambda _: True)
    outcome = try_optimizer("torch.optim", "Rprop")
    assert outcome["where"] == "wrong"
    assert "multipliers are not applied: " in outcome["reason"]
    assert outcome["deviation"] is not None
    assert outcome["deviation"] > TOLERANCE


def test_an_optimizer_that_does_not_train_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("needs a GPU")

    monkeypatch.setattr(torch.optim.SGD, "__init__", broken)
    outcome = try_optimizer("torch.optim", "SGD")
    assert (outcome["where"], outcome["reason"]) == ("not tried", "RuntimeError: needs a GPU")


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RuntimeError("at its first step"), "RuntimeError: at its first step"),
        (
            ModuleNotFoundError("No module named 'einops'"),
            "it needs a package that is not installed: No module named 'einops'",
        ),
    ],
)
def test_the_reason_is_that_of_the_manner_which_came_furthest(
    raised: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asking(torch.optim.SGD):
        def __init__(self, params: Any, lr: float | None = None) -> None:
            if lr is None:
                raise ValueError("the learning rate is missing")  # the first manner's
            super().__init__(params, lr)

        def step(self, *_: Any) -> Any:
            raise raised

    monkeypatch.setattr(building, "optimizers_in", lambda _: {"Asking": Asking})
    assert building.build("torch.optim", "Asking") == reason
    monkeypatch.setitem(building._WHY_NOT, "torch.optim.Asking", "it asks for too much")
    assert building.build("torch.optim", "Asking") == "it asks for too much"


class _AsksForOutputs(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        outputs, loss = closure()
        super().step()
        return outputs, loss


class _StepsOnItsOwnLoss(torch.optim.SGD):
    has_seen_a_loss = False

    def backward(self, loss: torch.Tensor) -> None:
        self.has_seen_a_loss = True
        loss.backward()

    def step(self, *_: Any) -> Any:
        if self.has_seen_a_loss:
            super().step()


class _NeedsGradientsBeforeItsClosure(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        assert self.param_groups[0]["params"][0].grad is not None
        closure()
        super().step()


@pytest.mark.parametrize(
    ("kind", "manner"),
    [
        (_AsksForOutputs, "closure_of_outputs"),
        (_StepsOnItsOwnLoss, "own_backward"),
        (_NeedsGradientsBeforeItsClosure, "backward_and_closure"),
    ],
)
def test_optimizers_may_ask_for_a_manner_of_their_own(
    kind: type[torch.optim.Optimizer], manner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "optimizers_in", lambda _: {"Special": kind})
    assert isinstance(building.build("torch.optim", "Special"), str)
    monkeypatch.setitem(building._MANNERS_OF, "torch.optim.Special", (manner,))
    assert not isinstance(building.build("torch.optim", "Special"), str)


def test_classes_that_cannot_be_stepped_have_a_reason() -> None:
    assert "inside backward()" in str(building.build("pytorch_optimizer", "LOMO"))


def outcome_of(name: str, **changes: Any) -> Outcome:
    outcome = Outcome(
        name=name,
        where="learning rates",
        reason="",
        deviation=0.01,
        measured=True,
        starts_late=False,
        steps="",
    )
    outcome.update(changes)  # type: ignore[typeddict-item]
    return outcome


def test_the_table_names_what_is_not_right() -> None:
    found = [
        outcome_of("A"),
        outcome_of("B", where="wrong", reason="multipliers are not applied"),
        outcome_of("C", where="not tried", reason="it needs a GPU"),
        outcome_of("E", where="not judged", reason="it takes more than 0 s"),
        outcome_of("D", where="update", starts_late=True, measured=False),
    ]
    packages = {"p": {"version": "1.0", "missing": "", "optimizers": found}}
    page = optimizers_table({"packages": packages, "steps": STEPS})
    assert "Of 5 classes, 4 train" in page
    assert "act on 2 of them" in page
    assert "Not right: 1. Take too long to be judged: 1." in page
    assert "| `p` | E | it takes more than 0 s |" in page
    assert "| `p` | B | multipliers are not applied |" in page
    assert "| `p` | C | it needs a GPU |" in page
    assert "would not last: D." in page
    assert "Without unit rates: D." in page


def test_the_stored_table_has_every_package_and_names_no_optimizer_as_wrong() -> None:
    packages = load_figures(_STORED)["optimizers"]["packages"]
    assert set(packages) == _PACKAGES == set(PACKAGES)
    for package, found in packages.items():
        assert found["optimizers"] or found["missing"], package
        for each in found["optimizers"]:
            assert each["where"] != "wrong", each
            if each["where"] in {"learning rates", "update"}:
                assert each["deviation"] <= TOLERANCE, each
            else:
                assert each["reason"], each
