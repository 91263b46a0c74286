"""Steps that are scaled as the one before cost little, and follow whatever was written since."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.optimizers.advisor import ChangingAdvisor
from fslr.torch import attach
from fslr.torch.steps.split_groups import SplitGroups
from tests.scaled_steps import groups_of_a_step, scaler_of

Change = Callable[[torch.optim.Optimizer], object]


def _assign(name: str, value: Any) -> Change:
    return lambda optimizer: optimizer.param_groups[0].update({name: value})


def _replace_tensor(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["params"][1] = nn.Parameter(torch.ones(5))


def _replace_list(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"][:2]


def _write_tensor(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[1]["lr"].fill_(0.25)


def _step_that_writes(optimizer: torch.optim.Optimizer) -> None:
    optimizer.register_step_post_hook(lambda *_: None)
    optimizer.step()


CHANGES: dict[str, Change] = {
    "nothing": lambda _: None,
    "a learning rate": _assign("lr", 0.5),
    "a learning rate that is a tensor now": _assign("lr", torch.tensor(0.5)),
    "a learning rate written in place": _write_tensor,
    "weight decay": _assign("weight_decay", 0.3),
    "a different setting": _assign("betas", (0.5, 0.6)),
    "a new setting": _assign("unknown", 3),
    "a setting that is gone": lambda optimizer: optimizer.param_groups[0].pop("maximize"),
    "a replaced tensor": _replace_tensor,
    "a shorter list of tensors": _replace_list,
    "names": _assign("param_names", ["a", "b", "c", "d"]),
    "an added group": lambda optimizer: optimizer.add_param_group({
        "params": [nn.Parameter(torch.ones(2))]
    }),
    "groups in a different order": lambda optimizer: optimizer.param_groups.reverse(),
    "a step": _step_that_writes,
}


def _contents(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return groups with tensors as their ids, so that they can be compared."""
    return [
        {
            name: list(map(id, value))
            if name == "params"
            else float(value)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in group.items()
        }
        for group in groups
    ]


@pytest.mark.parametrize("keeps_decay", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_kept_parts_follow_the_groups(what: str, keeps_decay: bool) -> None:
    parameters = [nn.Parameter(torch.ones(5)) for _ in range(6)]
    groups: list[dict[str, Any]] = [
        {"params": parameters[:4]},
        {"params": parameters[4:], "lr": torch.tensor(0.125)},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, foreach=False)
    multipliers = [2.0, 0.5, 2.0, 1.0, 0.25, 1.0]
    kept = scaler_of(optimizer, parameters)
    kept.scale(multipliers, keeps_decay=keeps_decay)
    optimizer.step()
    first = groups_of_a_step(kept)
    assert len(first) == 5
    CHANGES[what](optimizer)
    fresh = scaler_of(optimizer, parameters)
    fresh.scale(multipliers, keeps_decay=keeps_decay)
    assert _contents(groups_of_a_step(kept)) == _contents(groups_of_a_step(fresh))


def test_what_a_step_writes_into_its_parts_does_not_stay_in_them() -> None:
    class Writing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
            for group in self.param_groups:
                group["momentum"] = 0.75
                group["lr"] = group["lr"] / 2
                group["params"].clear()

    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = Writing(parameters, lr=1.0)
    scaler = scaler_of(optimizer, parameters)
    scaler.scale([2.0, 0.5, 2.0])
    optimizer.step()
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["lr"]) == (0.75, 0.5)
    seen = groups_of_a_step(scaler)
    assert [group["lr"] for group in seen] == [1.0, 0.25]
    assert [len(group["params"]) for group in seen] == [2, 1]
    assert {group["momentum"] for group in seen} == {0.75}


def _calls_of_a_step(blocks: int) -> int:
    """Return how many Python functions of this package a step calls that is not measured."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(blocks)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs = torch.randn(8, 4)
    counted: list[str] = []

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and "/fslr/" in frame.f_code.co_filename:
            counted.append(frame.f_code.co_qualname)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()

    with attach(
        model, optimizer, profile="any", advisor=ChangingAdvisor(100), answers="wait"
    ) as attachment:
        for _ in range(3):
            step()
        assert set(attachment.multipliers) != {1.0}
        split = pytest.MonkeyPatch()
        split.setattr(SplitGroups, "_parts_of", None)  # it must not be called
        sys.setprofile(count)
        try:
            step()
        finally:
            sys.setprofile(None)
            split.undo()
        assert attachment.failures == 0
    return len(counted)


def test_the_work_of_a_step_does_not_grow_with_the_number_of_tensors() -> None:
    few, many = map(_calls_of_a_step, (2, 40))
    assert 0 < many <= few
    assert few < 100
