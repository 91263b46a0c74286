"""What cannot be attached is refused, and what changes after attaching is noticed."""

from __future__ import annotations

import gc
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fslr import AttachError, MeasurementError, RunInfo
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, Recorder, attach
from tests.small_net import LEARNING_RATE, MULTIPLIERS, attached, backward, net


def test_attaching_twice_is_refused_and_names_the_attachment_in_force() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    attachment, _ = attached(model, optimizer)
    message = r"SGD is attached already: <Attachment: profile .*step 0, 4 groups.*close that"
    with pytest.raises(AttachError, match=message):
        attached(model, optimizer)
    with pytest.raises(AttachError, match=message):
        attached(model, [optimizer])
    attachment.close()
    again, _ = attached(model, optimizer)
    for _ in range(2):  # the update of the first step is scaled, then the learning rates
        _check_a_step(model, optimizer)
    again.close()
    assert not optimizer._optimizer_step_pre_hooks


def _check_a_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Step, and compare how far each tensor moves with its multiplier."""
    before = [p.detach().clone() for p in model.parameters()]
    backward(model, 1)
    optimizer.step()
    for p, b, multiplier in zip(model.parameters(), before, MULTIPLIERS, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(
            p - b, -LEARNING_RATE * multiplier * p.grad, rtol=1e-3, atol=1e-6
        )


def test_an_attachment_that_was_dropped_does_not_block() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    attachment, _ = attached(model, optimizer)
    backward(model, 0)
    optimizer.step()
    del attachment
    gc.collect()
    again, _ = attached(model, optimizer)
    _check_a_step(model, optimizer)
    again.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not model._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # by compilers
@pytest.mark.parametrize(
    "how",
    [
        *("by hand", "never"),
        pytest.param("by hand, compiled model", marks=pytest.mark.long),
        pytest.param("by hand, compiled step", marks=pytest.mark.long),
    ],
)
def test_a_training_that_never_steps_the_optimizer_is_noticed_once(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = net()
    if how == "by hand, compiled model":
        model.compile(backend="eager")

    def train(step: int) -> None:
        backward(model, step)
        if "by hand" in how:
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=LEARNING_RATE)

    if how == "by hand, compiled step":
        train = torch.compile(train, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with caplog.at_level(logging.WARNING, "fslr"), Recorder(model, optimizer):
        for step in range(21 if "by hand" in how else 600):
            train(step)
    (record,) = [r for r in caplog.records if "without a step" in r.getMessage()]
    seen = "the model was called 500 times" if how == "never" else "the weights changed 3 times"
    assert record.getMessage() == (
        f"{seen} without a step() of SGD, so nothing is measured and no multiplier is "
        "applied; attach the optimizer whose step() the training calls, or the one that it wraps"
    )


def test_gradient_accumulation_is_no_training_without_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with caplog.at_level(logging.WARNING, "fslr"), Recorder(model, optimizer) as recorder:
        for step in range(120):
            backward(model, step)
            if step % 40 == 39:
                optimizer.step()
    assert "without a step" not in caplog.text
    assert recorder.step == 3


def _add(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model[0].requires_grad_(requires_grad=True)
    optimizer.add_param_group({"params": list(model[0].parameters())})


def _replace(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    old = model[2].weight
    assert isinstance(old, nn.Parameter)
    new = model[2].weight = nn.Parameter(old.detach().clone())
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]


def _remove(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not model[2].weight]


def _exchange(model: nn.Sequential, _: torch.optim.Optimizer) -> None:
    model[2] = nn.Linear(8, 3)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_add, r"those of the start: added: 0.weight, 0.bias. Those that are new step at"),
        (_replace, r"those of the start: replaced: 2.weight. Those that are new"),
        (_remove, r"those of the start: removed: 2.weight. Those that are new"),
        (_exchange, r"the model's parameters are not .* gone: 2.bias, 2.weight, so the optimizer"),
    ],
)
def test_parameters_that_change_are_named_and_the_rest_goes_on(
    change: Callable[[nn.Sequential, torch.optim.Optimizer], None],
    message: str,
    scaling: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = net()
    if change is _add:
        model[0].requires_grad_(requires_grad=False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=0.5)
    multipliers = dict(zip(trained, MULTIPLIERS[-len(trained) :], strict=True))
    advisor = FakeAdvisor(list(multipliers.values()), interval_steps=2)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(
            *(model, optimizer),
            profile="x",
            advisor=advisor,
            max_overhead=None,
            answers="wait",
            scaling=scaling,
        ) as attachment,
    ):
        for step in range(25):
            if step == 3:
                change(model, optimizer)
            backward(model, step)
            before = {p: p.detach().clone() for p in model.parameters()}
            optimizer.step()
    stepped = {p for group in optimizer.param_groups for p in group["params"]}
    for p, b in before.items():
        # Those that are new step as scheduled, and those that are gone do not step.
        factor = multipliers.get(p, 1.0) if p in stepped else 0.0
        momentum = optimizer.state[p]["momentum_buffer"] if p in stepped else torch.zeros_like(p)
        torch.testing.assert_close(p - b, -LEARNING_RATE * factor * momentum, rtol=1e-3, atol=1e-7)
    assert (attachment.step, attachment.failures) == (25, 0)
    assert len(advisor.measurements) == 13
    (record,) = caplog.records
    assert re.search(message, record.getMessage())


class LikeAccelerate(torch.optim.Optimizer):
    """Wraps an optimizer as Accelerate does: it never calls the constructor of its base."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)


class LikeLightning:
    """Wraps an optimizer without being one."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def step(self) -> None:
        self._optimizer.step()


@pytest.mark.parametrize("wrapper", [LikeAccelerate, LikeLightning])
def test_wrappers_that_only_pass_calls_on_are_unwrapped(wrapper: Any) -> None:
    model = net()
    optimizer = wrapper(torch.optim.SGD(model.parameters(), lr=LEARNING_RATE))
    attachment, advisor = attached(model, optimizer)
    with attachment:
        backward(model, 0)
        optimizer.step()
    assert (attachment.step, attachment.failures, len(advisor.measurements)) == (1, 0, 1)


class Unhookable(torch.optim.Optimizer):
    """Does not call the constructor of its base, and wraps nothing."""

    def __init__(self, params: Any) -> None:
        self.param_groups = [{"params": list(params), "lr": 0.1}]


def _without_rate(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    del optimizer.param_groups[0]["lr"]
    return optimizer


def _around_unreadable(model: nn.Module) -> torch.optim.Optimizer:
    class Unreadable(torch.optim.SGD):
        is_ready = False

        @property
        def param_groups(self) -> list[dict[str, Any]]:
            if self.is_ready:
                raise KeyError("groups")
            return self._kept

        @param_groups.setter
        def param_groups(self, groups: list[dict[str, Any]]) -> None:
            self._kept = groups

    inner = Unreadable(model.parameters(), lr=LEARNING_RATE)
    inner.is_ready = True
    outer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    outer.base = inner  # type: ignore[attr-defined]
    return outer


def _with_none(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    optimizer.param_groups[0]["params"].append(None)
    return optimizer


def _with_rate(model: nn.Module, rate: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    optimizer.param_groups[0]["lr"] = rate
    return optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "the optimizer is a NoneType, not a torch.optim.Optimizer"),
        (lambda _: "adam", "the optimizer is a str, not a torch.optim.Optimizer"),
        (lambda m: m, "the optimizer is a module .Sequential.; pass the model first"),
        (lambda m: m.parameters(), "is a Parameter, not a torch.optim.Optimizer"),
        (
            lambda m: torch.optim.lr_scheduler.ExponentialLR(_with_rate(m, 0.1), 0.5),
            "ExponentialLR is a scheduler, not an optimizer; pass the optimizer",
        ),
        (lambda m: Unhookable(m.parameters()), "Unhookable takes no step hooks: its constructor"),
        (_without_rate, "SGD cannot be attached: a group .* has no learning rate .'lr'."),
        (lambda m: _with_rate(m, None), "SGD cannot be attached: .* is None, so it computes its"),
        (lambda m: _with_rate(m, "auto"), "SGD cannot be attached: .* is a str; it must be a num"),
        (
            lambda m: _with_rate(m, torch.ones((), device="meta")),
            "SGD cannot be attached: .* is a Tensor; it must be a number, or a tensor with one",
        ),
        (
            _around_unreadable,
            "Unreadable cannot .* groups cannot be read .KeyError: 'groups'.; pass",
        ),
        (_with_none, "SGD cannot be attached: a NoneType is among the parameters in its groups"),
        (lambda m: _with_rate(m, torch.ones(2)), "SGD cannot be attached: .* is a Tensor; it must"),
    ],
)
@pytest.mark.parametrize("what", ["attach", "Recorder"])
def test_what_cannot_be_attached_is_refused_in_words(
    what: str, make: Callable[[nn.Module], Any], message: str
) -> None:
    model = net()
    given = make(model)
    with pytest.raises(AttachError, match=message):
        if what == "attach":
            attached(model, given)
        else:
            Recorder(model, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"options": {"probes": 4}},
            r"options is {'probes': 4}; .* such as MeasuringOptions.probes",
        ),
        ({"run": 5}, "run is 5; it must be the name of the run, or a fslr.RunInfo; without a name"),
        ({"run": RunInfo(name=5)}, "name is 5; it must be a string"),  # type: ignore[arg-type]
        ({"run": RunInfo(policy="x")}, "policy is 'x'; it must be a message"),  # type: ignore[arg-type]
        ({"run": RunInfo(ratios={"batch": "x"})}, "ratio batch is 'x'; it"),  # type: ignore[dict-item]
        ({"profile": None}, "profile is None; it must be the name of one, such as 'char-gpt@prod'"),
        ({"recipe": 5}, "recipe is 5; it must be a string"),
        ({"advisor": None}, "advisor is None; it must be the address of the service, such as '127"),
        ({"total_steps": "x"}, "total_steps is 'x'; it must be an integer of at least 0; 0: unkno"),
        ({"first_step": "x"}, "first_step is 'x'; it must be the number of steps"),
        ({"max_overhead": "x"}, "max_overhead is 'x'; it is a part of the training's time above 0"),
        (
            {"listeners": print},
            "listeners is <built-in .* must be a list of functions of one event",
        ),
        ({"residual_outputs": "x"}, "residual_outputs is 'x'; it must be a list of patterns"),
    ],
)
def test_arguments_of_a_different_type_are_refused_in_words(given: Any, message: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    arguments = {"profile": "x", "advisor": FakeAdvisor(MULTIPLIERS), **given}
    with pytest.raises(AttachError, match=message):
        attach(model, optimizer, **arguments)
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"options": {"probes": 4}},
            r"options is {'probes': 4}; .* such as MeasuringOptions.probes",
        ),
        ({"every": "x"}, "every is 'x'; measure every step .1. or less often"),
        ({"provenance": 5}, "provenance is 5; it must be a fslr.Provenance, or the model in words"),
        ({"options": MeasuringOptions(probes=2.5)}, "probes is 2.5; it must be an integer, at le"),  # type: ignore[arg-type]
        ({"options": MeasuringOptions(seed="x")}, "seed is 'x'; it must be an integer"),  # type: ignore[arg-type]
    ],
)
def test_a_recorder_refuses_arguments_of_a_different_type(given: Any, message: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with pytest.raises((AttachError, MeasurementError), match=message):
        Recorder(model, optimizer, **given)
    assert not model._forward_pre_hooks


def test_a_model_that_is_no_module_is_refused() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with pytest.raises(AttachError, match=r"the model is a SGD, not a torch.nn.Module; pass the"):
        Recorder(optimizer, model)  # type: ignore[arg-type]


def test_a_model_whose_parameters_have_no_shape_yet_is_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with pytest.raises(
        AttachError, match=r"2 parameter\(s\) of the model .* first '0.weight'.*once"
    ):
        Recorder(model, optimizer)


@pytest.mark.parametrize(
    "rate", [np.float32(LEARNING_RATE), torch.tensor(LEARNING_RATE, requires_grad=True)]
)
def test_learning_rates_of_numpy_and_trained_ones_are_numbers(rate: Any) -> None:
    model = net()
    optimizer = _with_rate(model, rate)
    attachment, advisor = attached(model, optimizer)
    with attachment, warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(model, 0)
        optimizer.step()
    assert advisor.openings[0].base_learning_rate == pytest.approx(LEARNING_RATE)
    assert (attachment.failures, attachment.multipliers) == (0, MULTIPLIERS)


def test_a_learning_rate_that_becomes_none_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class OwnDefault(torch.optim.SGD):
        @torch.no_grad()
        def step(self, _closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_((group["lr"] or LEARNING_RATE) * parameter.grad)

    model = net()
    optimizer = OwnDefault(model.parameters(), lr=LEARNING_RATE)
    attachment, _ = attached(model, optimizer)
    with attachment, caplog.at_level(logging.WARNING, "fslr"):
        for step in range(4):
            backward(model, step)
            optimizer.step()
            if step:  # the optimizer is tried out again in step 1
                optimizer.param_groups[0]["lr"] = None
    assert attachment.failures == 2
    assert "a group of the optimizer is None now, so there is nothing to multiply" in caplog.text


def test_parameters_that_are_unfrozen_later_are_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = net()
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(model, optimizer, profile="x", advisor=FakeAdvisor(0.5), strict=False),
    ):
        for step in range(6):
            if step == 3:
                model[0].requires_grad_(requires_grad=True)
            backward(model, step)
            optimizer.step()
    [message] = [r.getMessage() for r in caplog.records if "frozen at the start" in r.getMessage()]
    assert "unfrozen: 0.weight, 0.bias. They step at their scheduled learning rates" in message
