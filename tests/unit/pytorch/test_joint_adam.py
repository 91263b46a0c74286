"""Parts of a group of Adam or AdamW are stepped together, as PyTorch steps them one by one."""

from __future__ import annotations

import importlib
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fslr.torch.steps import joint_adam
from fslr.torch.steps.joint_adam import JointAdam
from fslr.training.setting_factors import SettingFactors
from tests.scaled_steps import scaler_of

MULTIPLIERS = [0.5, 2.0, 1.0, 2.0, 3.0, 0.5, 0.25, 1.0]
Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Trained:
    """A training with multipliers, and what is left of it.

    Attributes:
        optimizer: The optimizer.
        parameters: Its parameters, 8 tensors of three types, one of which never has a gradient.
        calls: How many times its last step called each operation of PyTorch.
    """

    def __init__(
        self,
        make: Make,
        multipliers: list[float] = MULTIPLIERS,
        *,
        keeps_decay: bool = False,
        factors: SettingFactors | None = None,
    ) -> None:
        self.parameters = [
            nn.Parameter(torch.linspace(-1, 1, 6).mul(place + 1).to(_dtype(place)))
            for place in range(8)
        ]
        self.optimizer = make(self.parameters)
        scaler = scaler_of(self.optimizer, self.parameters)
        if factors is not None:
            scaler.set_settings([factors] * 8)
        schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)
        for number in range(4):
            changed = [*multipliers[number // 2 :], *multipliers[: number // 2]]
            scaler.scale(changed, keeps_decay=keeps_decay)
            for place, parameter in enumerate(self.parameters):
                gradient = (parameter.detach() * (number + 1)).sin()
                parameter.grad = None if place == 3 else gradient
            with _Calls() as self.calls:
                self.optimizer.step()
            schedule.step()

    def tensors(self) -> Iterator[Tensor]:
        """Yield the parameters and the state."""
        for parameter in self.parameters:
            yield parameter.detach()
            yield from self.optimizer.state.get(parameter, {}).values()


class _Calls(TorchDispatchMode):
    """Counts the operations that are called inside the context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _dtype(place: int) -> torch.dtype:
    return {5: torch.float64, 6: torch.bfloat16}.get(place, torch.float32)


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": parameters[:5]}, {"params": parameters[5:], "lr": 0.25, "weight_decay": 0}]


def _apart(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> Trained:
    """Return a training with PyTorch's own step of the parts."""
    with monkeypatch.context() as patch:
        patch.setattr(JointAdam, "takes", lambda *_: False)
        return Trained(*args, **options)


def _assert_equal(one: Trained, other: Trained) -> None:
    pairs = list(zip(one.tensors(), other.tensors(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert (
        one.optimizer.state_dict()["param_groups"] == other.optimizer.state_dict()["param_groups"]
    )


@pytest.mark.parametrize("kernels", ["foreach", "fused", "default"])
@pytest.mark.parametrize(
    ("kind", "options", "how"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.5}, {"keeps_decay": True}),
        (torch.optim.AdamW, {"amsgrad": True}, {"factors": SettingFactors(weight_decay=4.0)}),
        (torch.optim.Adam, {"weight_decay": 0.5, "maximize": True, "amsgrad": True}, {}),
    ],
)
def test_a_joint_step_is_bit_identical_to_that_of_the_parts(
    kernels: str, kind: Any, options: Any, how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {} if kernels == "default" else {kernels: True}
    if kernels == "default":  # foreach on accelerators
        module = importlib.import_module("torch.optim.optimizer")
        monkeypatch.setattr(module, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = kind(_groups(parameters), lr=0.125, **chosen, **options)
        return made

    joint = Trained(make, **how)
    apart = _apart(monkeypatch, make, **how)
    _assert_equal(joint, apart)
    if kernels != "fused":  # not more calls than without multipliers
        whole = Trained(make, [1.0] * 8)
        names = [name for name in whole.calls.found if "foreach" in name]
        assert sum(joint.calls.found[name] for name in names) <= sum(
            whole.calls.found[name] for name in names
        )
    assert joint.calls.found["_foreach_add_"] < apart.calls.found["_foreach_add_"]


class _Subclass(torch.optim.AdamW):
    """Does something with its groups after the step of its base class."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"] / 8)


def _with_a_step_of_its_own(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(parameters, lr=0.125, foreach=True)

    def step(self: torch.optim.Optimizer, closure: Any = None) -> None:  # noqa: ARG001
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(group["lr"] * parameter.grad)

    hooked = torch.optim.Optimizer.profile_hook_step(step)
    optimizer.step = types.MethodType(hooked, optimizer)  # type: ignore[method-assign]
    return optimizer


def _scaled_gradients(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer: Any = torch.optim.AdamW(parameters[:5], lr=0.125, fused=True)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    return optimizer  # type: ignore[no-any-return]


def _adamw(**options: Any) -> Make:
    return lambda parameters: torch.optim.AdamW(parameters, lr=0.125, **options)


def _of_a_tensor(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=torch.tensor(0.125), fused=True)


@pytest.mark.parametrize(
    ("make", "how"),
    [
        pytest.param(_of_a_tensor, {}, id="learning rate in a tensor"),
        pytest.param(_adamw(foreach=False), {}, id="one tensor after the other"),
        pytest.param(lambda p: _Subclass(p, lr=0.125, foreach=True), {}, id="subclass"),
        pytest.param(_with_a_step_of_its_own, {}, id="step of its own"),
        pytest.param(_scaled_gradients, {}, id="scaled gradients"),
        pytest.param(
            _adamw(foreach=True), {"factors": SettingFactors(epsilon=4.0)}, id="epsilons differ"
        ),
    ],
)
def test_what_a_joint_step_does_not_cover_is_stepped_by_pytorch(
    make: Make, how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = _apart(monkeypatch, make, **how)
    monkeypatch.setattr("fslr.torch.steps.split_groups.joint_step", None)  # it is not called
    trained = Trained(make, **how)
    _assert_equal(trained, apart)
    plain = Trained(make, [1.0] * 8, **how)
    assert not torch.equal(trained.parameters[0], plain.parameters[0])


def test_a_pytorch_that_steps_differently_is_stepped_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = _adamw(foreach=True)
    expected = Trained(make)

    def different(*_: Any) -> None:
        raise TypeError("_foreach_lerp_() got an unexpected argument")

    for replaced in (different, lambda *_: None):
        monkeypatch.setattr(joint_adam, "_foreach", replaced)
        joint_adam.equals_pytorch.cache_clear()
        try:
            assert not joint_adam.equals_pytorch(False, False, False, True)
            _assert_equal(Trained(make), expected)
        finally:
            joint_adam.equals_pytorch.cache_clear()


def test_a_compiled_function_leaves_steps_of_adam_joint() -> None:
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))  # wraps functions of optimizers
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        assert joint_adam.steps_as_adam(kind([nn.Parameter(torch.ones(1))]))


def test_groups_that_cannot_be_judged_are_stepped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Trained(_adamw(foreach=True))

    def failing(_: Any) -> bool:
        raise RuntimeError("device not ready")

    for name in ("_is_taken", "_has_numbers", "equals_pytorch"):
        with monkeypatch.context() as patch:
            patch.setattr(joint_adam, name, failing)
            _assert_equal(Trained(_adamw(foreach=True)), expected)


@pytest.mark.parametrize("kernels", ["foreach", "fused"])
def test_what_is_written_during_a_joint_step_counts_and_an_error_leaves_groups_whole(
    kernels: str,
) -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(4)]
    optimizer = torch.optim.AdamW(
        parameters[:3],
        lr=1.0,
        weight_decay=0.0,
        **{kernels: True},  # type: ignore[arg-type]
    )
    scaler_of(optimizer, parameters).scale([0.5, 2.0, 1.0, 4.0])

    def closure() -> float:
        (group,) = optimizer.param_groups
        assert group["params"] == parameters[:3]
        group["lr"] = 0.125
        optimizer.add_param_group({"params": parameters[3:], "lr": 0.25})
        for parameter in parameters:
            parameter.grad = torch.ones(2)
        return 0.0

    optimizer.step(closure)  # a first step of Adam is as long as the learning rate
    moves = [1 - parameter[0].item() for parameter in parameters]
    assert moves == pytest.approx([0.0625, 0.25, 0.125, 1.0], rel=1e-5)
    parameters[0].grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert [group["params"] for group in optimizer.param_groups] == [parameters[:3], parameters[3:]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.25]
