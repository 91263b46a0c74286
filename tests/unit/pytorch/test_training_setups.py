"""Steps are measured and scaled correctly in every kind of training loop."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advisor.local.in_process import InProcessAdvisor
from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import (
    Batch,
    MeasuringOptions,
    ModelGroups,
    Recorder,
    Update,
    attach,
    exact_unit_rates,
)
from fslr.torch.model.batch import AutocastState
from tests.building import COMPLETE_PROVENANCE, content_message
from tests.measuring import ROUNDING, SIGMAS

INDEPENDENT = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT

_PROBES = 40
_LR = 0.01


class Net(nn.Module):
    """A small network, optionally with its middle recomputed in the backward pass."""

    def __init__(self, *, bias: bool = True, reentrant: bool | None = None) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8, bias=bias)
        self.middle = nn.Sequential(nn.Tanh(), nn.Linear(8, 8, bias=bias), nn.Tanh())
        self.head = nn.Linear(8, 3, bias=bias)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.reentrant is None:
            x = self.middle(x)
        else:
            x = checkpoint(self.middle, x, use_reentrant=self.reentrant)
        out: Tensor = self.head(x)
        return out


class SignDescent(torch.optim.Optimizer):
    """A custom optimizer."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())


@dataclass
class Setup:
    """The parts of a training loop; the defaults are the simplest ones."""

    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = lambda m: torch.optim.Adam(
        m.parameters(), lr=_LR
    )
    model: Callable[[], nn.Module] = Net
    called: Callable[[nn.Module], nn.Module] = lambda model: model
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    accumulated: int = 1
    clip: float | None = None
    scaler: bool = False
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    tolerance: float = 0.0  # of a rate in addition to the sampling error, for 16-bit arithmetic


def _compiled(model: nn.Module) -> nn.Module:
    wrapped = torch.compile(model, backend="aot_eager")
    assert isinstance(wrapped, nn.Module)
    return wrapped


def _compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="aot_eager")
    return model


_optim = torch.optim
SETUPS = {
    "plain": Setup(),
    "SGD with momentum": Setup(lambda m: _optim.SGD(m.parameters(), lr=_LR, momentum=0.9)),
    "AdamW": Setup(lambda m: _optim.AdamW(m.parameters(), lr=_LR, weight_decay=0.1)),
    "AdamW, fused": Setup(lambda m: _optim.AdamW(m.parameters(), lr=_LR, fused=True)),
    "AdamW, foreach": Setup(lambda m: _optim.AdamW(m.parameters(), lr=_LR, foreach=True)),
    "AdamW of named parameters": Setup(lambda m: _optim.AdamW(m.named_parameters(), lr=_LR)),
    "Adagrad": Setup(lambda m: _optim.Adagrad(m.parameters(), lr=_LR)),
    "Adamax": Setup(lambda m: _optim.Adamax(m.parameters(), lr=_LR)),
    "RMSprop": Setup(lambda m: _optim.RMSprop(m.parameters(), lr=_LR)),
    "own optimizer": Setup(lambda m: SignDescent(m.parameters(), lr=_LR)),
    "tensor lr": Setup(lambda m: _optim.Adam(m.parameters(), lr=torch.tensor(_LR), foreach=False)),
    "LambdaLR": Setup(scheduler=lambda o: _optim.lr_scheduler.LambdaLR(o, lambda s: 1 / (1 + s))),
    "OneCycle": Setup(
        scheduler=lambda o: _optim.lr_scheduler.OneCycleLR(o, max_lr=_LR, total_steps=20)
    ),
    "ReduceLROnPlateau": Setup(
        scheduler=lambda o: _optim.lr_scheduler.ReduceLROnPlateau(o, patience=0)
    ),
    "gradient accumulation": Setup(accumulated=3),
    "gradient clipping": Setup(clip=0.01),
    "GradScaler": Setup(scaler=True),
    "autocast bf16": Setup(context=lambda: torch.autocast("cpu", torch.bfloat16), tolerance=0.02),
    "checkpointing": Setup(model=lambda: Net(reentrant=False)),
    "checkpointing, reentrant": Setup(model=lambda: Net(reentrant=True)),
    "compiled": Setup(called=_compiled),
    "compiled in place": Setup(called=_compiled_in_place),
}
if hasattr(_optim, "Muon"):
    SETUPS["Muon"] = Setup(
        lambda m: _optim.Muon(m.parameters(), lr=_LR), model=lambda: Net(bias=False)
    )


class Loop:
    """A training loop as a user would write it."""

    def __init__(self, setup: Setup, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.setup, self.optimizer = setup, optimizer
        self.model = model
        self.scheduler = None if setup.scheduler is None else setup.scheduler(optimizer)
        self.scaler = torch.amp.GradScaler("cpu", enabled=setup.scaler, init_scale=2.0**8)
        self.data = torch.Generator().manual_seed(1)

    def step(self) -> Tensor:
        """Make a step; return all inputs of the model."""
        self.optimizer.zero_grad()
        seen: list[Tensor] = []
        for _ in range(self.setup.accumulated):
            inputs = torch.randn(16, 6, generator=self.data)
            seen.append(inputs)
            targets = torch.randn(16, 3, generator=self.data)
            with self.setup.context():
                loss = nn.functional.mse_loss(self.model(inputs).float(), targets)
            self.scaler.scale(loss / self.setup.accumulated).backward()
        if self.setup.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.setup.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(loss.detach())
        elif self.scheduler is not None:
            self.scheduler.step()
        return torch.cat(seen)


def prepared(setup: Setup) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = setup.model()
    return setup.called(model), setup.optimizer(model)


@pytest.mark.compatibility("PyTorch loop", "record", "accumulation", "mixed precision")
@pytest.mark.parametrize("case", SETUPS)
def test_steps_are_measured_correctly(case: str) -> None:
    setup = SETUPS[case]
    model, optimizer = prepared(setup)
    groups = ModelGroups(model, optimizer)
    with Recorder(model, optimizer, every=1, options=MeasuringOptions(probes=_PROBES)) as recorder:
        loop = Loop(setup, model, optimizer)
        for _ in range(3):  # fill the optimizer's state and advance the schedule
            rate = float(optimizer.param_groups[0]["lr"])
            before = [group.parameter.detach().clone() for group in groups]
            inputs = loop.step()
    assert recorder.failures == 0
    assert not recorder.slow_groups
    updates = [(g.parameter.detach() - b) / rate for g, b in zip(groups, before, strict=True)]
    with setup.context():
        autocasts = (AutocastState.current("cpu"),)
    with torch.no_grad():
        for group, start in zip(groups, before, strict=True):
            group.parameter.copy_(start)
    exact = exact_unit_rates(
        model, groups, Batch.from_call((inputs,), {}, autocasts), Update(lambda i: updates[i])
    )
    assert recorder.estimate is not None
    found = recorder.estimate
    for mine, error, true in zip(found.unit_rates, found.relative_errors, exact, strict=True):
        assert abs(math.log(mine / true)) < SIGMAS * error + ROUNDING + setup.tolerance
        assert error < 0.05


@pytest.mark.compatibility("PyTorch loop", "advised", "mixed precision")
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("case", SETUPS)
def test_steps_are_scaled_correctly(case: str, scaling: Any) -> None:
    """Except for the weight decay, which stays the same."""
    setup = SETUPS[case]
    moves: list[list[Tensor]] = []
    for attached in (False, True):
        model, optimizer = prepared(setup)
        groups = ModelGroups(model, optimizer)
        is_decoupled = type(optimizer).__name__ in {"AdamW", "Muon"}
        decays = {
            id(parameter): float(group["lr"]) * group["weight_decay"] if is_decoupled else 0.0
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        decayed = [decays[id(g.parameter)] * g.parameter.detach().clone() for g in groups]
        advisor = FakeAdvisor(
            [0.25 * 2 ** (i % 5) for i, _ in enumerate(groups)], weight_decay=INDEPENDENT
        )
        before = [group.parameter.detach().clone() for group in groups]
        if attached:
            with attach(
                model, optimizer, profile="x", advisor=advisor, scaling=scaling
            ) as attachment:
                Loop(setup, model, optimizer).step()
                multipliers = attachment.multipliers
                later = [group.parameter.detach().clone() for group in groups]
                Loop(setup, model, optimizer).step()
                assert (attachment.failures, attachment.step) == (0, 2)
            assert any(
                not torch.equal(g.parameter, after) for g, after in zip(groups, later, strict=True)
            )
        else:
            Loop(setup, model, optimizer).step()
            later = [group.parameter.detach() for group in groups]
        moves.append([a - b + d for a, b, d in zip(later, before, decayed, strict=True)])
    for plain, scaled, multiplier in zip(*moves, multipliers, strict=True):
        torch.testing.assert_close(scaled, plain * multiplier, rtol=2e-3, atol=2e-7)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_a_compiled_step_is_measured_and_scaled_like_any_other() -> None:
    weights: list[list[Tensor]] = []
    for compiled in (False, True):
        model, optimizer = prepared(SETUPS["AdamW"])
        if compiled:
            optimizer.step = torch.compile(optimizer.step, backend="eager")  # type: ignore[method-assign,assignment]
        advisor = FakeAdvisor(
            [0.1 + i for i, _ in enumerate(ModelGroups(model, optimizer))], weight_decay=INDEPENDENT
        )
        with attach(model, optimizer, profile="x", advisor=advisor) as attachment:
            loop = Loop(SETUPS["AdamW"], model, optimizer)
            for _ in range(3):
                loop.step()
        assert attachment.failures == 0
        assert attachment.multipliers == advisor.multipliers
        weights.append([p.detach() for p in model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_scaling_learning_rates_and_updates_gives_the_same_steps(scaling: Any) -> None:
    setup = SETUPS["OneCycle"]
    model, optimizer = prepared(setup)
    reference, plain = prepared(setup)
    names = [group.name for group in ModelGroups(model, optimizer)]
    advisor = InProcessAdvisor(content_message(names))
    with attach(model, optimizer, profile="x", advisor=advisor, scaling=scaling) as attachment:
        loops = Loop(setup, model, optimizer), Loop(setup, reference, plain)
        for _ in range(2):
            reference.load_state_dict(model.state_dict())
            plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            before = [p.detach().clone() for p in model.parameters()]
            for loop in loops:
                loop.step()
    for p, q, start, multiplier in zip(
        model.parameters(), reference.parameters(), before, attachment.multipliers, strict=True
    ):
        torch.testing.assert_close(p - start, (q - start) * multiplier, rtol=2e-3, atol=2e-7)


def test_a_step_that_a_gradient_scaler_skips_is_not_measured() -> None:
    model, optimizer = prepared(SETUPS["plain"])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    with Recorder(model, optimizer, every=1) as recorder:
        for scale in (float("inf"), 1.0, 1.0):
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(8, 6)).sum() * scale).backward()
            scaler.step(optimizer)
            scaler.update()
    assert recorder.failures == 0
    assert [point.step for point in recorder.profile("x").points] == [0, 1]


def test_measuring_pauses_if_no_step_moves_anything(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = prepared(SETUPS["plain"])
    measured: list[int] = []

    def output(result: Tensor) -> Tensor:
        measured.append(recorder.step)
        return result

    with (
        Recorder(
            model,
            optimizer,
            every=1,
            provenance=COMPLETE_PROVENANCE,
            options=MeasuringOptions(output=output),
        ) as recorder,
        caplog.at_level(logging.WARNING, "fslr"),
    ):
        for step in range(100):
            optimizer.zero_grad()
            (model(torch.randn(8, 6)).sum() * (step >= 50)).backward()
            optimizer.step()
    assert sorted({step for step in measured if step < 90}) == [*range(8), 32, *range(82, 90)]
    assert [point.step for point in recorder.profile("x").points] == list(range(82, 100))
    (message,) = [record.getMessage() for record in caplog.records]
    assert (
        "8 steps in a row moved no output of the model; the next measurement is at step" in message
    )


def test_the_snapshot_can_be_kept_in_host_memory() -> None:
    rates = []
    for on_host in (False, True):
        model, optimizer = prepared(SETUPS["plain"])
        options = MeasuringOptions(snapshot_on_host=on_host)
        plain, plain_optimizer = prepared(SETUPS["plain"])
        with Recorder(model, optimizer, every=1, options=options) as recorder:
            loops = (
                Loop(SETUPS["plain"], model, optimizer),
                Loop(SETUPS["plain"], plain, plain_optimizer),
            )
            for _ in range(3):
                for loop in loops:
                    loop.step()
        assert recorder.estimate is not None
        rates.append(recorder.estimate)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p, q)
    assert rates[0].unit_rates == rates[1].unit_rates
    assert rates[0].linearity_error == rates[1].linearity_error


class ZeroProjection(nn.Module):
    """A residual block with a zero projection, so the layer before it moves nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 3)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed(x)
        stream = stream + self.down(torch.tanh(self.up(stream)))
        out: Tensor = self.head(stream)
        return out


def test_layers_before_a_zero_projection_are_advised_from_the_first_step_at_which_they_move() -> (
    None
):
    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for step in range(steps):
            inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    model: nn.Module = ZeroProjection(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR)
    with Recorder(model, optimizer, every=25) as recorder:
        train(model, optimizer, 30)
    content = recorder.profile("zero projection")
    up = [group.name for group in recorder.groups].index("up.weight")
    rates = {point.step: point.unit_rates[up] for point in content.points}
    assert list(rates) == [0, 1, 25]
    assert rates[0] == 0 < rates[1]
    model = ZeroProjection(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR)
    options = MeasuringOptions(probes=_PROBES)
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=InProcessAdvisor(content),
        options=options,
        answers="wait",
    ) as attachment:
        train(model, optimizer, 1)
        first = attachment.by_name()["up.weight"]
        assert first.outcome == "held zero rate"
        assert attachment.multipliers[up] == (first.prior or 1.0)
        train(model, optimizer, 1)
        second = attachment.by_name()["up.weight"]
        assert second.unit_rate
        assert second.outcome not in {None, "held zero rate"}
        assert "step 2" in repr(attachment)
        assert repr(attachment).startswith("<Attachment: profile in-process@1, ")
