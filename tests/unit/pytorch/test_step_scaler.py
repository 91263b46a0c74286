"""Scaling a step changes the step and nothing else in the optimizer."""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from advisor.local.in_process import InProcessAdvisor
from fslr import AttachError
from fslr.torch import ModelGroups, attach
from fslr.torch.steps.scaling import choose
from fslr.torch.steps.step_scaler import splitting_hint
from tests.building import content_message
from tests.scaled_steps import groups_of_a_step, scaler_of
from tests.training_jobs import in_process, wide

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.001, momentum=0.9, weight_decay=0.01),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    "AdamW": lambda m: torch.optim.AdamW(m.named_parameters(), lr=0.01),
    "two groups": lambda m: torch.optim.Adam(
        [
            {"params": [p for p in m.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in m.parameters() if p.dim() <= 1], "lr": 0.5},
        ],
        lr=0.01,
    ),
}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    net(torch.randn(8, 4, generator=generator)).square().sum().backward()
    optimizer.step()


class Counting(torch.optim.Optimizer):
    """A custom optimizer that counts its steps in the group."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "count": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            group["count"] += 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad / group["count"])


class Wrapping(torch.optim.Optimizer):
    """A custom wrapper of an optimizer that shares its list of groups."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        self.inner.step()


class Weighing(torch.optim.Optimizer):
    """A custom optimizer whose averages have weights that depend on the learning rates."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "largest": 0.0, "weights": 0.0, "count": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            group["largest"] = max(group["lr"], group["largest"])
            weight = (group["count"] + 1) * group["largest"] ** 2
            group["weights"] += weight
            group["count"] += 1
            for parameter in group["params"]:
                z = self.state[parameter].setdefault("z", parameter.clone())
                z.sub_(group["lr"] * parameter.grad)
                parameter.lerp_(z, weight / group["weights"])


OPTIMIZERS["Counting"] = lambda m: Counting(m.parameters(), lr=0.01)
OPTIMIZERS["Wrapping"] = lambda m: Wrapping(OPTIMIZERS["two groups"](m))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_each_parameter_by_its_multiplier(name: str) -> None:
    plain, scaled = model(), model()
    optimizers = OPTIMIZERS[name](plain), OPTIMIZERS[name](scaled)
    scaler = scaler_of(optimizers[1], list(scaled.parameters()))
    multipliers = [0.5, 2.0, 1.0, 2.0, 3.0, 0.5]
    for seed in range(3):
        scaled.load_state_dict(plain.state_dict())
        start = [p.detach().clone() for p in plain.parameters()]
        own = optimizers[1].param_groups
        step(plain, optimizers[0], seed)
        scaler.scale(multipliers)
        step(scaled, optimizers[1], seed)
        scaler.restore()
        assert optimizers[1].param_groups is own
        for p, q, s, m in zip(
            plain.parameters(), scaled.parameters(), start, multipliers, strict=True
        ):
            torch.testing.assert_close(q - s, (p - s) * m, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_state_is_that_of_a_plain_training(name: str) -> None:
    plain, scaled = model(), model()
    optimizers = OPTIMIZERS[name](plain), OPTIMIZERS[name](scaled)
    scaler = scaler_of(optimizers[1], list(scaled.parameters()))
    for seed in range(3):
        scaled.load_state_dict(plain.state_dict())
        step(plain, optimizers[0], seed)
        scaler.scale([0.5, 2.0, 1.0, 2.0, 3.0, 0.5])
        step(scaled, optimizers[1], seed)
        scaler.restore()
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for key, own in states[0]["state"].items():
        torch.testing.assert_close(own, states[1]["state"][key], rtol=0, atol=0)


def test_equal_multipliers_share_a_group() -> None:
    net = model()
    optimizer = OPTIMIZERS["two groups"](net)
    scaler = scaler_of(optimizer, list(net.parameters()))
    scaler.scale([2.0] * 6)
    assert len(groups_of_a_step(scaler)) == 2
    scaler.scale([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert len(groups_of_a_step(scaler)) == 3
    assert len(optimizer.param_groups) == 2


class Growing(torch.optim.SGD):
    """An optimizer that adds a group during its second step."""

    def __init__(self, params: Any, more: nn.Module) -> None:
        super().__init__(params, lr=0.01)
        self.more: nn.Module | None = more

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.state and self.more is not None:
            self.add_param_group({"params": list(self.more.parameters())})
            self.more = None
        super().step(closure)


@pytest.mark.parametrize("by", ["the step", "a closure"])
def test_a_group_that_is_added_during_a_step_stays(by: str) -> None:
    net, more = model(), nn.Linear(2, 2)
    optimizer = Growing(net.parameters(), more) if by == "the step" else OPTIMIZERS["SGD"](net)
    scaler = scaler_of(optimizer, list(net.parameters()))
    scaler.scale([2.0, 0.5] * 3)

    def closure() -> float:
        if by == "a closure" and len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": list(more.parameters())})
        return 0.0

    for parameter in (*net.parameters(), *more.parameters()):
        parameter.grad = torch.ones_like(parameter)
    for _ in range(2):
        optimizer.step(closure)
        for parameter in net.parameters():  # Growing looks whether there is a state
            optimizer.state[parameter].setdefault("seen", True)
    assert [len(group["params"]) for group in optimizer.param_groups] == [6, 2]


def test_group_entries_that_depend_on_the_learning_rate_are_kept_per_parameter() -> None:
    multipliers = [0.5, 2.0, 1.0, 2.0, 3.0, 0.5]
    apart, scaled, resumed = model(), model(), model()
    groups = [
        {"params": [p], "lr": 0.01 * m}
        for p, m in zip(apart.parameters(), multipliers, strict=True)
    ]
    one = Weighing(groups, lr=0.01)
    other, another = (Weighing(net.parameters(), lr=0.01) for net in (scaled, resumed))
    scaler = scaler_of(other, list(scaled.parameters()))
    later = scaler_of(another, list(resumed.parameters()))
    for seed in range(6):
        in_force = multipliers if seed < 4 else [2.0 if m == 0.5 else m for m in multipliers]
        for group, multiplier in zip(one.param_groups, in_force, strict=True):
            group["lr"] = 0.01 * multiplier
        step(apart, one, seed)
        scaler.scale(in_force)
        step(scaled, other, seed)
        scaler.restore()
        if seed == 2:
            resumed.load_state_dict(scaled.state_dict())
            later.load_state_dict(scaler.state_dict())
            another.load_state_dict(copy.deepcopy(other.state_dict()))
        if seed > 2:
            later.scale(in_force)
            step(resumed, another, seed)
            later.restore()
        assert len(other.param_groups) == 1
    for p, q, r in zip(apart.parameters(), scaled.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(q, p)
        assert torch.equal(q, r)


def test_a_group_entry_changed_between_steps_applies_to_all_its_parameters() -> None:
    net = model()
    optimizer = Weighing(net.parameters(), lr=0.01)
    scaler = scaler_of(optimizer, list(net.parameters()))
    multipliers = [0.5, 2.0, 1.0, 2.0, 3.0, 0.5]
    scaler.scale(multipliers)
    step(net, optimizer, 0)
    scaler.restore()
    optimizer.param_groups[0]["largest"] = 7.0
    scaler.scale(multipliers)
    groups = groups_of_a_step(scaler)
    assert [group["largest"] for group in groups] == [7.0] * 4
    assert len({group["weights"] for group in groups}) == 4


def test_lbfgs_is_refused() -> None:
    with pytest.raises(
        AttachError, match=r"LBFGS steps along one direction.*use a different optimizer"
    ):
        choose(torch.optim.LBFGS(model().parameters()), "auto")


def test_multipliers_scale_the_scheduled_learning_rate_and_schedulers_do_not_see_them() -> None:
    plain, scaled = model(), model()
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (plain, scaled)]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in optimizers]
    scaler = scaler_of(optimizers[1], list(scaled.parameters()))
    for seed in range(3):
        scheduled = scaler.learning_rates()
        assert scheduled == pytest.approx([0.1 * 0.5**seed] * 6)
        for net, optimizer in zip((plain, scaled), optimizers, strict=True):
            start = [p.detach().clone() for p in net.parameters()]
            if net is scaled:
                scaler.scale([3.0] * 6)
                assert groups_of_a_step(scaler)[0]["lr"] == pytest.approx(0.3 * 0.5**seed)
                assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**seed)
            step(net, optimizer, seed)
            if net is scaled:
                scaler.restore()
            moves = [p.detach() - s for p, s in zip(net.parameters(), start, strict=True)]
            if net is plain:
                expected = [3.0 * move for move in moves]
        assert all(torch.allclose(m, e) for m, e in zip(moves, expected, strict=True))
        for net in (plain, scaled):  # start the next step from the same weights
            net.load_state_dict(plain.state_dict())
        for scheduler in schedulers:
            scheduler.step()


def test_scaling_again_after_a_step_that_raised_does_not_scale_twice() -> None:
    net = model()
    optimizer = OPTIMIZERS["SGD"](net)
    scaler = scaler_of(optimizer, list(net.parameters()))
    for _ in range(2):
        scaler.scale([2.0] * 6)
        assert groups_of_a_step(scaler)[0]["lr"] == pytest.approx(0.002)
    assert optimizer.param_groups[0]["lr"] == 0.001


@pytest.mark.parametrize("error", [KeyboardInterrupt("enough"), torch.OutOfMemoryError("no room")])
@pytest.mark.parametrize("where", ["closure", "step", "hook"])
def test_groups_are_whole_however_a_step_ends(where: str, error: BaseException) -> None:
    net, optimizer, backward = wide()
    with attach(net, optimizer, profile="x", advisor=in_process()) as attachment:
        backward()
        optimizer.step()
        assert max(abs(m - 1) for m in attachment.multipliers) > 0.1
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        before = optimizer.state_dict()["param_groups"]
        groups = list(optimizer.param_groups)
        seen: list[int] = []

        def fail(*_: object, **__: object) -> None:
            seen.append(len(optimizer.param_groups))
            raise error

        with pytest.MonkeyPatch.context() as patch:
            if where == "hook":
                handle = optimizer.register_step_pre_hook(fail)
            elif where == "step":
                patch.setattr(importlib.import_module("torch.optim.adam"), "adam", fail)
            for _ in range(2):
                with pytest.raises(type(error), match=str(error)):
                    optimizer.step(fail if where == "closure" else backward)  # type: ignore[arg-type]
                assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
                assert optimizer.state_dict()["param_groups"] == before
        assert seen == [len(groups)] * 2
        if where == "hook":
            handle.remove()
        scheduler.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == [0.005]
        assert (attachment.step, attachment.failures) == (2, 0)
    assert not optimizer._optimizer_state_dict_pre_hooks
    assert not optimizer._optimizer_load_state_dict_pre_hooks


def test_an_optimizer_of_different_parameters_is_refused() -> None:
    stranger = nn.Linear(3, 2)
    optimizer = torch.optim.SGD([*model().parameters(), *stranger.parameters()], lr=0.1)
    with pytest.raises(AttachError, match=r"8 tensor\(s\) that are not parameters of the model"):
        ModelGroups(model(), optimizer)


def test_an_optimizer_of_frozen_parameters_is_refused() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.requires_grad_(False)
    with pytest.raises(AttachError, match=r"updates no trainable parameter of the model"):
        ModelGroups(net, optimizer)


@pytest.mark.parametrize(
    ("kind", "options", "tensors", "hints"),
    [
        (torch.optim.SGD, {"fused": True}, 64, True),
        (torch.optim.NAdam, {"foreach": True}, 200, True),
        (torch.optim.SGD, {"fused": True}, 63, False),
        (torch.optim.SGD, {"foreach": False}, 200, False),
        (torch.optim.SGD, {}, 200, False),  # on the CPU, PyTorch loops by default
        (torch.optim.AdamW, {"fused": True}, 200, False),  # its parts are stepped together
        (torch.optim.AdamW, {"fused": True, "lr": torch.tensor(0.1)}, 200, True),
    ],
)
def test_a_hint_is_given_for_optimizers_that_step_many_tensors_together(
    kind: Any, options: dict[str, Any], tensors: int, hints: bool
) -> None:
    optimizer = kind(nn.Linear(3, 2).parameters(), **{"lr": 0.1, **options})
    hint = splitting_hint([optimizer], tensors)
    assert (f"{tensors} tensors" in hint) == hints
    assert ('scaling="update"' in hint) == hints


def test_the_hint_is_logged_once_and_no_second_optimizer_is_built(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(40)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, fused=True)
    built: list[object] = []
    monkeypatch.setattr(torch.optim.SGD, "__init__", lambda self, *_, **__: built.append(self))
    advisor = InProcessAdvisor(content_message([name for name, _ in net.named_parameters()]))
    with (
        caplog.at_level(logging.INFO, "fslr"),
        attach(net, optimizer, profile="x", advisor=advisor),
    ):
        for _ in range(30):
            net(torch.ones(8, 2)).square().sum().backward()
            optimizer.step()
    assert len([r for r in caplog.records if "80 tensors" in r.getMessage()]) == 1
    assert built == []
