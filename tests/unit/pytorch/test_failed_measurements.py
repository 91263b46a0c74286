"""Failed measurements do not alter the training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr.torch import MeasuringOptions, Recorder
from tests.building import COMPLETE_PROVENANCE


class Net(nn.Module):
    """A model with state that a failed measurement could alter: buffers, random draws, modes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 6)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.3)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 3)
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.frozen(self.dropout(self.norm(self.inner(x)))))
        return out


class FailsAt:
    """An output function that raises an error at a given call."""

    def __init__(self, call: int, error: BaseException) -> None:
        self.left, self.error = call, error

    def __call__(self, result: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return result


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return all state that a measurement could alter, in comparable form."""
    return {
        "weights": [(p.data_ptr(), p.detach().clone()) for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "trained": [p.requires_grad for p in model.parameters()],
        "buffers": [(id(b), b.clone()) for b in model.buffers()],
        "random": torch.get_rng_state(),
        "modes": [module.training for module in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "autocast": torch.is_autocast_enabled("cpu"),
        "grad": torch.is_grad_enabled(),
        "checkpoint": torch.utils.checkpoint.CheckpointFunction.apply,
        "functions": torch.overrides._get_current_function_mode_stack(),
        "groups": [(id(g), g["lr"], len(g["params"])) for g in optimizer.param_groups],
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def trained(
    attach: Callable[[nn.Module, torch.optim.Optimizer], Any], steps: int
) -> tuple[dict[str, Any], Any]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    watching = attach(model, optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 5)).square().sum().backward()
        with contextlib.suppress(KeyboardInterrupt):
            optimizer.step()
    state = state_of(model, optimizer)
    # Addresses differ between trainings; the test below checks that they do not change.
    state["weights"] = [weight for _, weight in state["weights"]]
    state["buffers"] = [buffer for _, buffer in state["buffers"]]
    state["groups"] = [group[1:] for group in state["groups"]]
    if watching is not None:
        watching.close()
    return state, watching


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("no room"), AttributeError("logits"), KeyboardInterrupt("enough")],
)
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_a_failure_anywhere_in_a_later_measurement_changes_nothing(
    call: int, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    output = FailsAt(0, error)

    def watch(model: nn.Module, optimizer: torch.optim.Optimizer) -> Recorder:
        return Recorder(
            model,
            optimizer,
            every=1,
            provenance=COMPLETE_PROVENANCE,
            options=MeasuringOptions(output=output),
        )

    def watch_and_fail(model: nn.Module, optimizer: torch.optim.Optimizer) -> Recorder:
        recorder = watch(model, optimizer)

        def start_failing(*_: object) -> None:
            if recorder.step == 1:
                recorder._meter._estimator._routes.clear()  # type: ignore[attr-defined]
                output.left = call

        optimizer.register_step_pre_hook(start_failing)
        return recorder

    plain, _ = trained(lambda *_: None, 3)
    with caplog.at_level(logging.WARNING, "fslr"):
        observed, recorder = trained(watch_and_fail, 3)
    plain["hooks"][0] = observed["hooks"][0]  # the hook of the recorder, until it is closed
    has_failed, is_counted = output.left <= 0, isinstance(error, Exception)
    assert recorder.failures == len(caplog.records) == (has_failed and is_counted)
    measured = [point.step for point in recorder.profile("x").points]
    assert (measured == [0, 1, 2]) != has_failed
    if call == 1:  # after an error the recorder waits, and not after an interruption
        assert measured == ([0] if is_counted else [0, 2])
    for key, value in plain.items():
        assert same(value, observed[key]), key


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_failed_strict_start_leaves_the_optimizers_step_unchanged(call: int) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    options = MeasuringOptions(output=FailsAt(call, torch.OutOfMemoryError("no room")))
    with Recorder(model, optimizer, options=options):
        model(torch.randn(8, 5)).square().sum().backward()
        made: list[dict[str, Any]] = []
        optimizer._optimizer_step_post_hooks = {
            -1: lambda *_: made.append(state_of(model, optimizer)),
            **optimizer._optimizer_step_post_hooks,
        }
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            optimizer.step()
        after = state_of(model, optimizer)
    for key, value in made[0].items():
        assert same(value, after[key]), key
