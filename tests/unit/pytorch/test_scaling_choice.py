"""Multipliers act on learning rates where that is right, else on updates, and steps are checked."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import AttachError
from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import Attachment, attach
from fslr.torch.steps.optimizer_trial import try_out
from fslr.torch.steps.scaling import choose, is_linear
from fslr.training.events import Event, Warned
from tests.small_net import MULTIPLIERS, backward, net
from tests.unusual_optimizers import (
    Averaging,
    FirstRates,
    GroupNormalized,
    KeepsWeightsLater,
    LateOwnWeights,
    Later,
    LaterOneTensor,
    LaterOwnWeights,
    Normalized,
    OneRate,
    OwnRates,
    OwnRatesKeepsWeightsLater,
    OwnReference,
    OwnWeights,
    OwnWeightsOneRate,
    ReadsItselfLater,
    ReadsItselfLaterOwnWeights,
    Recurring,
    Sharpness,
    Simple,
    Tiny,
)

INDEPENDENT = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT


BY_LEARNING_RATE: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Simple": Simple,
    "OwnWeights": OwnWeights,
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}
BY_UPDATE: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Recurring": Recurring,
    "OwnRates": OwnRates,
    "FirstRates": FirstRates,
    "OneRate": OneRate,
    "OwnReference": OwnReference,
    "Normalized": Normalized,
    "GroupNormalized": GroupNormalized,
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}


@pytest.mark.parametrize("name", [*BY_LEARNING_RATE, *BY_UPDATE])
def test_every_optimizer_steps_by_its_multipliers(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = {**BY_LEARNING_RATE, **BY_UPDATE}[name]
    plain, advised = net(), net()
    optimizers = [make(model.parameters()) for model in (plain, advised)]
    with (
        caplog.at_level(logging.INFO, "fslr"),
        attach(
            advised,
            optimizers[1],
            profile="x",
            advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        ) as attachment,
    ):
        for step in range(4):
            plain.load_state_dict(advised.state_dict())
            state = copy.deepcopy(optimizers[1].state_dict())
            if not isinstance(optimizers[1], OwnWeights):
                optimizers[0].load_state_dict(state)
            start = [p.detach().clone() for p in plain.parameters()]
            for model, optimizer in zip((plain, advised), optimizers, strict=True):
                backward(model, step)
                optimizer.step()
            if isinstance(optimizers[1], OwnWeights):
                continue  # the plain one keeps weights of other steps
            for p, q, before, multiplier in zip(
                plain.parameters(), advised.parameters(), start, MULTIPLIERS, strict=True
            ):
                torch.testing.assert_close(
                    q - before, (p - before) * multiplier, rtol=2e-3, atol=1e-6
                )
        assert attachment.failures == 0
        assert list(optimizers[1].param_groups[0]["params"]) == list(advised.parameters())
    lines = [r for r in caplog.records if "multipliers act on the updates of" in r.getMessage()]
    assert len(lines) == (1 if name in BY_UPDATE else 0)


def test_what_an_optimizer_adds_to_the_steps_that_it_wraps_is_scaled_too() -> None:
    plain, advised = net(), net()
    optimizers = [Sharpness(model.parameters()) for model in (plain, advised)]
    events: list[Event] = []
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT)
    with attach(advised, optimizers[1], profile="x", advisor=advisor, listeners=[events.append]):
        for step in range(3):
            plain.load_state_dict(advised.state_dict())
            start = [p.detach().clone() for p in plain.parameters()]
            for model, optimizer in zip((plain, advised), optimizers, strict=True):
                optimizer.step(partial(backward, model, step))
            for p, q, before, multiplier in zip(
                plain.parameters(), advised.parameters(), start, MULTIPLIERS, strict=True
            ):
                torch.testing.assert_close(
                    q - before, (p - before) * multiplier, rtol=2e-3, atol=1e-6
                )
    lines = [event.message for event in events if isinstance(event, Warned)]
    assert any("multipliers act on the updates of Sharpness" in line for line in lines)


def test_a_trial_leaves_optimizer_gradients_and_generators_unchanged() -> None:
    model = net()
    optimizer = Recurring(model.parameters(), lr=0.5)
    backward(model, 0)
    before = (
        [p.detach().clone() for p in model.parameters()],
        [p.grad for p in model.parameters()],
        copy.deepcopy(optimizer.state_dict()),
        torch.get_rng_state(),
    )
    assert try_out(optimizer).learning_rates
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before[0], strict=True))
    assert all(p.grad is g for p, g in zip(model.parameters(), before[1], strict=True))
    assert optimizer.state_dict() == before[2]
    assert torch.equal(torch.get_rng_state(), before[3])


@pytest.mark.parametrize("kind", [OwnWeights, LateOwnWeights])
def test_weights_that_an_optimizer_keeps_are_noticed(kind: type[OwnWeights]) -> None:
    trial = try_out(kind(net().parameters()))
    assert not trial.learning_rates
    assert "takes back 100 % of a change of the weights" in trial.updates


@pytest.mark.parametrize(
    ("kind", "scaling", "message"),
    [
        (
            OwnRates,
            "learning_rates",
            r"on the learning rates of OwnRates: .*scaling=\"auto\"",
        ),
        (OwnWeights, "update", r"cannot act on the updates of OwnWeights: .*\"learning_rates\""),
        (OwnWeightsOneRate, "auto", r"OwnWeightsOneRate: .*all groups must have .*observe_only=Tr"),
        (Simple, "rates", r"scaling is 'rates'; it must be one of auto, learning_rates, update"),
    ],
)
def test_a_way_that_is_known_to_be_wrong_is_refused_before_the_first_step(
    kind: Callable[[Any], torch.optim.Optimizer], scaling: Any, message: str
) -> None:
    model = net()
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT)
    optimizer = kind(model.parameters())
    with pytest.raises(AttachError, match=message):
        attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling)
    attach(model, optimizer, profile="x", advisor=advisor, observe_only=True).close()


def test_rounding_of_the_weights_is_not_taken_for_weights_of_its_own() -> None:
    trial = try_out(Tiny(net().parameters()))
    assert trial.learning_rates
    assert not trial.updates


def test_an_optimizer_that_cannot_be_copied_is_scaled_by_its_updates() -> None:
    class Holding(Simple):
        def __init__(self, params: Any) -> None:
            super().__init__(params)
            self.stream = (number for number in range(3))

    choice = choose(Holding(net().parameters()), "auto")
    assert choice.by_update
    assert "it could not be tried out (TypeError: cannot pickle" in choice.reason


def test_large_tensors_of_an_optimizer_are_not_copied() -> None:
    class Flat(Simple):
        def __init__(self, params: Any) -> None:
            super().__init__(params)
            self.flat = torch.zeros(2_000_000)

    assert (
        "it holds a tensor of 2,000,000 entries" in choose(Flat(net().parameters()), "auto").reason
    )


def test_known_optimizers_are_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was tried out")

    monkeypatch.setattr("fslr.torch.steps.scaling.try_out", fail)
    model = net()
    choice = choose(torch.optim.AdamW(model.parameters()), "auto")
    assert (choice.by_update, choice.is_certain) == (False, True)


def test_a_subclass_of_an_optimizer_that_is_known_not_to_be_linear_is_not() -> None:
    class Named(torch.optim.ASGD):
        """Has a name of its own."""

    choice = choose(Named(net().parameters()), "auto")
    assert (choice.by_update, choice.reason) == (True, "they take effect one step late")


@pytest.mark.parametrize(
    "name", ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"]
)
def test_optimizers_that_are_known_to_be_linear_are_so_when_tried_out(name: str) -> None:
    optimizer = getattr(torch.optim, name)(net().parameters(), lr=0.01)
    assert is_linear(optimizer)
    trial = try_out(optimizer)
    assert (trial.learning_rates, trial.updates, trial.was_possible) == ("", "", True)


@pytest.mark.parametrize(
    ("kind", "scaling", "line"),
    [
        (Later, "auto", r"multipliers act on the updates of Later, not on its"),
        (LaterOneTensor, "auto", r"updates of LaterOneTensor, .* some of its tensors does not"),
        (
            LaterOwnWeights,
            "auto",
            r"multipliers of LaterOwnWeights are 1\. .*does not depend on them; nor .* takes back",
        ),
        (OwnRatesKeepsWeightsLater, "auto", r"multipliers of OwnRatesKeepsWeightsLater are 1\."),
        (
            KeepsWeightsLater,
            "update",
            r"multipliers act on the learning rates of KeepsWeightsLater",
        ),
        (ReadsItselfLater, "auto", r"act on the updates of ReadsItselfLater, .*somewhere other"),
        (
            ReadsItselfLaterOwnWeights,
            "auto",
            r"OwnWeights are 1\. .*somewhere other than its groups; nor .* weights of its own",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_optimizer_that_begins_to_step_differently_steps_as_is_reported(
    kind: type[Later], scaling: Any, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = net()
    optimizer = kind(model.parameters())
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT, interval_steps=4)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(
            *(model, optimizer),
            profile="x",
            advisor=advisor,
            scaling=scaling,
            answers="wait",
            max_overhead=None,
        ) as attachment,
    ):
        for step in range(45):
            advisor.multipliers = [m / 4 * (1 + step % 8 / 8) for m in MULTIPLIERS]
            backward(model, step)
            before = [p.detach().clone() for p in model.parameters()]
            multipliers = attachment.multipliers
            optimizer.step()
        for p, b, m in zip(model.parameters(), before, multipliers, strict=True):
            assert p.grad is not None
            torch.testing.assert_close(p - b, -0.01 * m * p.grad, rtol=2e-3, atol=1e-7)
    # A step that reads other groups was made by then.
    assert attachment.failures == ("somewhere other" in line)
    assert advisor.measurements[-1].step == step
    assert list(advisor.measurements[-1].multipliers) == multipliers
    assert (multipliers == [1.0] * 4) == ("are 1" in line)
    (record,) = [r for r in caplog.records if "from now on" in r.getMessage()]
    assert len(caplog.records) == 1 + attachment.failures
    assert re.search(line, record.getMessage())


def test_the_step_of_the_check_that_turns_to_updates_is_scaled() -> None:
    model = net()
    optimizer = Later(model.parameters())
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT, interval_steps=4)
    turned: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned) and "from now on multipliers act on" in event.message:
            turned.append(event.step)

    with attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor,
        answers="wait",
        max_overhead=None,
        listeners=[listen],
    ) as attachment:
        for step in range(48):
            advisor.multipliers = [m * (1 + step % 8 / 8) for m in MULTIPLIERS]
            backward(model, step)
            before = [p.detach().clone() for p in model.parameters()]
            multipliers = attachment.multipliers
            optimizer.step()
            if turned:
                break
    assert turned == [step]
    for p, b, m in zip(model.parameters(), before, multipliers, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p - b, -0.01 * m * p.grad, rtol=2e-3, atol=1e-7)


def test_an_optimizer_that_averages_keeps_scaled_learning_rates(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = net()
    optimizer = Averaging(model.parameters())
    optimizer_of_trial = Averaging(model.parameters())  # its user has not called train() yet
    choice = choose(optimizer_of_trial, "auto")
    assert (choice.by_update, choice.is_correctable) == (False, False)
    optimizer.train()
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT, interval_steps=2)
    start = [p.detach().clone() for p in model.parameters()]
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(
            model, optimizer, profile="x", advisor=advisor, answers="wait", max_overhead=None
        ) as attachment,
    ):
        for step in range(24):
            advisor.multipliers = [m * (1 + step % 4 / 4) for m in MULTIPLIERS]
            backward(model, step)
            optimizer.step()
    assert attachment.failures == 0
    assert not [r for r in caplog.records if "multipliers act on the updates" in r.getMessage()]
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), start, strict=True))


def test_a_step_that_does_not_read_the_split_groups_is_noticed_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(model, optimizer, profile="x", advisor=advisor) as attachment,
    ):
        # A hook that calls the step with arguments of its own.
        optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, *args[1:]), kwargs))
        moves: list[Tensor] = []
        for step in range(4):
            backward(model, step)
            weight = next(model.parameters())
            before = weight.detach().clone()
            optimizer.step()
            assert weight.grad is not None
            moves.append((before - weight.detach()) / (0.01 * weight.grad))
    assert attachment.failures <= 1
    torch.testing.assert_close(moves[-1], torch.full_like(moves[-1], 0.5), rtol=1e-2, atol=1e-2)


class _RateInMomentum(torch.optim.Optimizer):
    """Keeps learning rates in its momentum, so that earlier ones move the weights later."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, _closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    buffer = self.state[parameter].setdefault(
                        "momentum", torch.zeros_like(parameter)
                    )
                    buffer.mul_(0.9).add_(parameter.grad, alpha=group["lr"])
                    parameter.sub_(buffer)


def test_an_optimizer_that_is_resumed_is_scaled_as_before() -> None:
    def begun() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        return model, _RateInMomentum(model.parameters(), lr=0.05)

    def attached(model: nn.Module, optimizer: torch.optim.Optimizer) -> Attachment:
        advisor = FakeAdvisor([0.5, 0.25, 2.0, 0.5], interval_steps=5)
        return attach(model, optimizer, profile="x", advisor=advisor, answers="wait")

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    model, optimizer = begun()
    attachment = attached(model, optimizer)
    train(model, optimizer, range(10))
    parts = (model, optimizer, attachment)
    saved = [copy.deepcopy(part.state_dict()) for part in parts]
    train(model, optimizer, range(10, 20))
    attachment.close()
    again, resumed = begun()
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    attachment = attached(again, resumed)
    attachment.load_state_dict(saved[2])
    train(again, resumed, range(10, 20))
    attachment.close()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
