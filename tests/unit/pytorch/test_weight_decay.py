"""Under the rule "independent" the weight decay of a step is what the user's settings say."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, Recorder, attach
from fslr.torch.steps.weight_decay import DecayKind, WeightDecay
from tests.building import COMPLETE_PROVENANCE
from tests.scaled_steps import groups_of_a_step, scaler_of

INDEPENDENT = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT

LEARNING_RATE, DECAY = 1e-2, 0.3
SMALL_DECAY = 0.05  # with momentum, what is exact for weights that do not change
MULTIPLIERS = (1e-3, 0.05, 1.0, 10.0)

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=LEARNING_RATE, weight_decay=DECAY),
    "AdamW foreach": lambda p: torch.optim.AdamW(
        p, lr=LEARNING_RATE, weight_decay=DECAY, foreach=True
    ),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=LEARNING_RATE, weight_decay=DECAY, fused=True),
    "AdamW with a tensor": lambda p: torch.optim.AdamW(
        p, lr=torch.tensor(LEARNING_RATE), weight_decay=DECAY, foreach=False
    ),
    "Adam, decoupled": lambda p: torch.optim.Adam(
        p, lr=LEARNING_RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "NAdam, decoupled": lambda p: torch.optim.NAdam(
        p, lr=LEARNING_RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "RAdam, decoupled": lambda p: torch.optim.RAdam(
        p, lr=LEARNING_RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "SGD": lambda p: torch.optim.SGD(p, lr=LEARNING_RATE, weight_decay=DECAY),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=LEARNING_RATE, weight_decay=DECAY, foreach=True),
    "SGD with tensors": lambda p: torch.optim.SGD(
        p, lr=torch.tensor(LEARNING_RATE), weight_decay=torch.tensor(DECAY), foreach=False
    ),
}
if hasattr(torch.optim, "Muon"):  # newer than the oldest supported version
    OPTIMIZERS["Muon"] = lambda p: torch.optim.Muon(p, lr=LEARNING_RATE, weight_decay=DECAY)


class Products(nn.Module):
    """A model of matrices, as Muon needs them, that are used one after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrices = nn.ParameterList(torch.randn(4, 4) for _ in MULTIPLIERS)

    def forward(self, x: Tensor) -> Tensor:
        for matrix in self.matrices:
            x = torch.tanh(x @ matrix)
        return x


def backward(model: nn.Module, *, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(1)
    model.zero_grad()
    (scale * model(torch.randn(8, 4, generator=generator)).square().mean()).backward()


def decays_without_gradient(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Return which part of each parameter a step with gradients of zero takes away."""
    optimizer.state.clear()
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return [
        ((b - p.detach()) * b).sum().item() / b.square().sum().item()
        for b, p in zip(before, model.parameters(), strict=True)
    ]


@pytest.mark.compatibility("PyTorch loop", "weight decay")
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_decay_of_a_step_does_not_depend_on_the_multiplier(name: str, scaling: Any) -> None:
    model = Products()
    optimizer = OPTIMIZERS[name](model.parameters())
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT)
    with attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling) as attachment:
        for _ in range(2):
            backward(model)
            optimizer.step()
        assert attachment.multipliers == list(MULTIPLIERS)
        assert attachment.failures == 0
        found = decays_without_gradient(model, optimizer)
    assert found == pytest.approx([LEARNING_RATE * DECAY] * len(MULTIPLIERS), rel=1e-3)


@pytest.mark.compatibility("PyTorch loop", "weight decay")
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_under_the_rule_coupled_a_multiplier_scales_the_decay(name: str, scaling: Any) -> None:
    model = Products()
    optimizer = OPTIMIZERS[name](model.parameters())
    advisor = FakeAdvisor(MULTIPLIERS, weight_decay=policy_pb2.WEIGHT_DECAY_RULE_COUPLED)
    with attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling):
        backward(model)
        optimizer.step()
        found = decays_without_gradient(model, optimizer)
    expected = [LEARNING_RATE * DECAY * multiplier for multiplier in MULTIPLIERS]
    assert found == pytest.approx(expected, rel=1e-2, abs=5e-7)  # a few units in the last place


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_groups_with_learning_rates_and_decays_of_their_own(
    name: str, scaling: Any
) -> None:
    """The first step, which is rescaled by the first answer, is one of them."""
    plain, advised = Products(), Products()
    groups = [{"params": [matrix]} for matrix in plain.matrices]
    optimizers = OPTIMIZERS[name](groups), OPTIMIZERS[name](advised.parameters())
    for group, multiplier in zip(optimizers[0].param_groups, MULTIPLIERS, strict=True):
        group["lr"] = group["lr"] * multiplier
        group["weight_decay"] = group["weight_decay"] / multiplier
    with attach(
        advised,
        optimizers[1],
        profile="x",
        advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        scaling=scaling,
    ):
        for _ in range(5):
            for model, optimizer in zip((plain, advised), optimizers, strict=True):
                backward(model)
                optimizer.step()
            for p, q in zip(plain.parameters(), advised.parameters(), strict=True):
                torch.testing.assert_close(q, p, rtol=2e-4, atol=2e-5)


def test_groups_keep_their_own_decays_and_the_optimizer_shows_no_other() -> None:
    model = Products()
    matrices = list(model.matrices)
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices[:2], "weight_decay": 0.3},
            {"params": matrices[2:3], "weight_decay": 0.0},
            {"params": matrices[3:], "weight_decay": 0.2, "lr": 0.02},
        ],
        lr=0.01,
    )
    scaler = scaler_of(optimizer, matrices)
    before = optimizer.state_dict()["param_groups"]
    scaler.scale([0.5, 1.0, 0.5, 4.0], keeps_decay=True)
    parts = groups_of_a_step(scaler)
    assert [part["lr"] for part in parts] == pytest.approx([0.005, 0.01, 0.005, 0.08])
    assert [part["weight_decay"] for part in parts] == pytest.approx([0.6, 0.3, 0.0, 0.05])
    assert scaler.decays() == [0.0] * 4  # there was no step
    optimizer.step()
    assert scaler.decays() == pytest.approx([0.003, 0.003, 0.0, 0.004])  # as scheduled
    assert optimizer.state_dict()["param_groups"] == before
    assert scaler.state_dict() == {"notes": [{}] * 4}


def test_a_tiny_multiplier_gives_no_infinite_decay() -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    scaler = scaler_of(optimizer, list(model.parameters()))
    scaler.scale([1e-310] * 4, keeps_decay=True)
    (part,) = groups_of_a_step(scaler)
    assert part["weight_decay"] == 1e30


def with_momentum(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        model.parameters(), lr=1e-3, weight_decay=SMALL_DECAY, momentum=0.9, **options
    )


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}])
def test_with_momentum_the_decay_is_kept_while_a_multiplier_stays(
    scaling: Any, options: dict[str, Any]
) -> None:
    """Scaling the update takes the decay in the momentum as that of weights that do not change."""
    shrunk: list[list[float]] = []
    for multipliers in ((1.0,) * 4, MULTIPLIERS):
        model = Products()
        optimizer = with_momentum(model, **options)
        with attach(
            model,
            optimizer,
            profile="x",
            advisor=FakeAdvisor(multipliers, weight_decay=INDEPENDENT),
            scaling=scaling,
        ):
            backward(model)
            optimizer.step()
            optimizer.state.clear()
            norms = []
            for _ in range(180):
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
                norms.append([p.detach().norm().item() for p in model.parameters()])
        # The momentum has no decay at first.
        shrunk.append([math.log(a / b) for a, b in zip(norms[80], norms[-1], strict=True)])
    of_a_step = 1e-3 * SMALL_DECAY * (1 - options.get("dampening", 0.0)) / (1 - 0.9)
    if options.get("nesterov"):
        of_a_step = 1e-3 * SMALL_DECAY * (1 + 0.9 / (1 - 0.9))
    assert shrunk[0] == pytest.approx([99 * of_a_step] * 4, rel=0.02)
    assert shrunk[1] == pytest.approx(shrunk[0], rel=0.06)


def test_momentum_from_before_a_change_of_the_multiplier_has_the_earlier_decay() -> None:
    """This is what is not exact for L2 with momentum; it fades with the momentum."""
    model = Products()
    optimizer = with_momentum(model)
    scaler = scaler_of(optimizer, list(model.parameters()))
    decays: list[float] = []
    for step in range(80):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = model.matrices[0].detach().clone()
        scaler.scale([0.1 if step < 40 else 0.2] * 4, keeps_decay=True)
        optimizer.step()
        scaler.restore()
        decays.append(((before - model.matrices[0].detach()) / before).mean().item())
    kept = 1e-3 * SMALL_DECAY / (1 - 0.9)
    assert decays[39] == pytest.approx(kept, rel=0.05)
    assert decays[40] == pytest.approx(1.9 * kept, rel=0.05)
    assert decays[79] == pytest.approx(kept, rel=0.05)


class Unknown(torch.optim.SGD):
    """An optimizer with a step of its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


class UnknownAdamW(torch.optim.AdamW):
    """An optimizer with a step of its own, such as one whose decay has no learning rate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


class Wrapped(torch.optim.Optimizer):
    """An optimizer that shares the groups of another one."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner
        self.param_groups = inner.param_groups


class Lion(torch.optim.Optimizer):
    """Known by its name."""


class Plain(torch.optim.SGD):
    """An optimizer with the step of its base."""


class PlainAdamW(torch.optim.AdamW):
    """An optimizer with the step of its base."""


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (torch.optim.AdamW, DecayKind.DECOUPLED),
        (lambda p: torch.optim.AdamW(p, weight_decay=0.0), DecayKind.NONE),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), DecayKind.OTHER),
        (torch.optim.Adam, DecayKind.NONE),
        (lambda p: torch.optim.RAdam(p, weight_decay=0.1), DecayKind.OTHER),
        (lambda p: torch.optim.RMSprop(p, weight_decay=0.1), DecayKind.OTHER),
        (lambda p: torch.optim.Adafactor(p, weight_decay=0.1), DecayKind.DECOUPLED),
        (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1), DecayKind.L2),
        (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1, momentum=1.0), DecayKind.OTHER),
        (lambda p: Plain(p, 0.1, weight_decay=0.1), DecayKind.L2),
        (lambda p: Unknown(p, 0.1, weight_decay=0.1), DecayKind.OTHER),
        (UnknownAdamW, DecayKind.OTHER),
        (PlainAdamW, DecayKind.DECOUPLED),
        (lambda p: Wrapped(torch.optim.AdamW(p)), DecayKind.DECOUPLED),
        (lambda p: Wrapped(torch.optim.SGD(p, 0.1, weight_decay=0.1)), DecayKind.L2),
        (lambda p: Lion(p, {"lr": 0.1, "weight_decay": 0.1}), DecayKind.DECOUPLED),
    ],
)
def test_the_kind_of_decay_is_found(
    optimizer: Callable[[Any], torch.optim.Optimizer], kind: DecayKind
) -> None:
    built = optimizer([nn.Parameter(torch.ones(2, 2))])
    assert WeightDecay(built).kind(built.param_groups[0]) is kind


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT, 1),
        (policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 0),
    ],
)
def test_l2_in_an_adaptive_optimizer_stays_unchanged_and_a_hint_says_so_once(
    rule: policy_pb2.WeightDecayRule.ValueType,
    count: int,
    scaling: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    decays: list[float] = []
    optimizer.register_step_pre_hook(
        lambda *_: decays.extend(group["weight_decay"] for group in optimizer.param_groups)
    )
    with (
        caplog.at_level(logging.INFO, "fslr"),
        attach(
            model,
            optimizer,
            profile="x",
            advisor=FakeAdvisor(MULTIPLIERS, weight_decay=rule),
            scaling=scaling,
        ),
    ):
        for _ in range(4):
            backward(model)
            optimizer.step()
    assert set(decays) == {0.1}
    hints = [r for r in caplog.records if "Adam normalizes it with the gradient" in r.getMessage()]
    assert len(hints) == count
    assert all("weight decay of 4 tensor(s)" in hint.getMessage() for hint in hints)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize(
    ("decay", "multiplier", "rule", "count"),
    [
        (0.1, 0.5, policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 1),
        (0.1, 0.5, policy_pb2.WEIGHT_DECAY_RULE_UNSPECIFIED, 1),
        (0.1, 0.5, policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT, 0),
        (0.1, 1.0, policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 0),
        (0.0, 0.5, policy_pb2.WEIGHT_DECAY_RULE_COUPLED, 0),
    ],
)
def test_a_hint_says_once_that_multipliers_scale_the_decay(
    decay: float,
    multiplier: float,
    rule: policy_pb2.WeightDecayRule.ValueType,
    count: int,
    scaling: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=decay)
    advisor = FakeAdvisor([multiplier] * len(MULTIPLIERS), weight_decay=rule)
    with (
        caplog.at_level(logging.INFO, "fslr"),
        attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling),
    ):
        for _ in range(4):
            backward(model)
            optimizer.step()
    hint = "multipliers scale the weight decay of 4 tensor(s) together with the rest"
    assert sum(hint in record.getMessage() for record in caplog.records) == count


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_a_parameter_without_a_gradient_does_not_decay(scaling: Any) -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        scaling=scaling,
    ):
        backward(model)
        optimizer.step()
        before = model.matrices[1].detach().clone()
        backward(model)
        model.matrices[1].grad = None
        optimizer.step()
    assert torch.equal(model.matrices[1], before)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("excludes", [False, True])
@pytest.mark.parametrize(
    "rule",
    [policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT, policy_pb2.WEIGHT_DECAY_RULE_COUPLED],
)
def test_measurements_do_not_depend_on_the_multiplier(
    rule: policy_pb2.WeightDecayRule.ValueType, excludes: bool, scaling: Any
) -> None:
    """Neither with the decay nor without it, whether it is kept or scaled."""
    model = Products()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    options = MeasuringOptions(exclude_weight_decay=excludes, seed=1)
    advisor = FakeAdvisor((0.05, 0.5, 1.0, 3.0), weight_decay=rule, interval_steps=1)
    with attach(
        model, optimizer, profile="x", advisor=advisor, options=options, scaling=scaling
    ) as attachment:
        for step in range(2):
            backward(model)
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            expected = [
                (gradient + (0.0 if excludes else DECAY) * p.detach()).square().mean().sqrt().item()
                for gradient, p in zip(gradients, model.parameters(), strict=True)
            ]
            optimizer.step()
            assert attachment.estimate is not None
            assert attachment.estimate.update_rms == pytest.approx(expected, rel=1e-3), step
            assert attachment.estimate.excludes_weight_decay == excludes
            # The step that the rates describe is nearly linear, for it is small.
            assert attachment.estimate.linearity_error == pytest.approx(0.0, abs=0.05)
    assert advisor.measurements[0].excludes_weight_decay == excludes


def test_l2_in_an_adaptive_optimizer_cannot_be_excluded_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    options = MeasuringOptions(exclude_weight_decay=True)
    Recorder(model, optimizer, provenance=COMPLETE_PROVENANCE, options=options).close()
    attach(
        model,
        optimizer,
        profile="x",
        advisor=FakeAdvisor(MULTIPLIERS, weight_decay=INDEPENDENT),
        options=options,
    ).close()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all("exclude_weight_decay has no effect on 4 tensor(s): Adam" in m for m in messages)
    caplog.clear()
    Recorder(
        model,
        OPTIMIZERS["AdamW"](model.parameters()),
        provenance=COMPLETE_PROVENANCE,
        options=options,
    ).close()
    assert not caplog.records


def test_a_recording_that_is_resumed_with_the_other_option_takes_no_more_points(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    state: dict[str, Any] = {}
    for excludes in (True, False):
        options = MeasuringOptions(exclude_weight_decay=excludes)
        with Recorder(model, optimizer, every=1, options=options) as recorder:
            if state:
                recorder.load_state_dict(state)
            backward(model)
            optimizer.step()
            state = recorder.state_dict()
    assert "exclude_weight_decay is False, and it was True before the recording was" in caplog.text
    content = recorder.profile("x")
    assert [point.step for point in content.points] == [0]
    assert content.excludes_weight_decay


@pytest.mark.parametrize("on_host", [False, True])
def test_a_profile_of_a_training_without_gradient_has_the_rates_of_its_decay_or_none(
    on_host: bool,
) -> None:
    points = []
    for excludes in (False, True):
        model = Products()
        plain = Products()
        optimizers = [OPTIMIZERS["AdamW"](each.parameters()) for each in (model, plain)]
        options = MeasuringOptions(exclude_weight_decay=excludes, snapshot_on_host=on_host)
        with Recorder(model, optimizers[0], options=options) as recorder:
            for each, optimizer in zip((model, plain), optimizers, strict=True):
                backward(each)
                optimizer.step()
        content = recorder.profile("x")
        assert content.excludes_weight_decay == excludes
        points.append(content.points[0])
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p, q)  # bit-identical
    # Adam's first update is the sign of the gradient.
    assert list(points[1].update_rms) == pytest.approx([1.0] * 4, rel=1e-3)
    assert all(rms > 1.005 for rms in points[0].update_rms)
    assert all(
        one != other for one, other in zip(points[0].unit_rates, points[1].unit_rates, strict=True)
    )


@pytest.mark.parametrize("excludes", [False, True])
def test_a_step_that_is_skipped_has_no_rates(excludes: bool) -> None:
    model = Products()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    options = MeasuringOptions(exclude_weight_decay=excludes)
    with Recorder(model, optimizer, options=options) as recorder:
        backward(model)
        model.zero_grad()
        optimizer.step()
        assert recorder.estimate is None
        backward(model)
        optimizer.step()
    assert [point.step for point in recorder.profile("x").points] == [1]


@pytest.mark.parametrize("decay", [DECAY, 0.0])
def test_measurements_carry_the_weight_decay_of_a_scheduled_step(decay: float) -> None:
    model, advisor = nn.Linear(3, 2), FakeAdvisor(0.5)
    groups = [{"params": [model.weight], "weight_decay": decay}, {"params": [model.bias]}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0)
    with attach(model, optimizer, profile="base", advisor=advisor, run="decaying") as attachment:
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        attachment.report_metrics(attachment.step, {"loss": torch.tensor([2.5])})
    (measurement,) = advisor.measurements
    assert list(measurement.weight_decays) == pytest.approx(
        [LEARNING_RATE * decay, 0] if decay else []
    )
    assert [(report.step, dict(report.values)) for report in advisor.metrics] == [
        (1, {"loss": 2.5})
    ]
