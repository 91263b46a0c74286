"""How each optimizer is built and stepped: its usual way, or what its class asks for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.optimizers.job import Job, Manner, build_model
from benchmarks.optimizers.packages import optimizers_in

_Kind = Callable[..., torch.optim.Optimizer]
_Make = Callable[[_Kind, nn.Module], torch.optim.Optimizer]

_MANNERS: tuple[Manner, ...] = ("step", "closure", "second_order", "two_calls")
_HOW: dict[Manner, str] = {
    "step": "",
    "closure": "with a closure",
    "second_order": "after backward(create_graph=True)",
    "two_calls": "with first_step() and second_step()",
    "backward_and_closure": "with a closure after backward()",
    "closure_of_outputs": "with a closure that returns outputs and loss",
    "own_backward": "after its own backward(loss)",
}
_SHORT = 10  # steps, in which something must move; some count to 6 before they move anything


@dataclass(frozen=True, slots=True)
class Built:
    """How the job of an optimizer is made.

    Attributes:
        make: Makes it; always the same one.
        how: What is not usual about it; empty: nothing.
    """

    make: Callable[[], Job]
    how: str


def build(package: str, name: str) -> Built | str:
    """Return how an optimizer is built so that it trains a model, or why it does not.

    Args:
        package: A key of :data:`benchmarks.optimizers.packages.PACKAGES`.
        name: The class.
    """
    if reason := _NOT_TRIED.get(f"{package}.{name}", ""):
        return reason
    kind = optimizers_in(package)[name]
    furthest = _Failure("no way to build it is known", -1)
    for make, described in _ways(package, name):
        for manner in _MANNERS_OF.get(f"{package}.{name}", _MANNERS):
            if manner == "two_calls" and not hasattr(kind, "first_step"):
                continue
            built = Built(_maker(kind, make, manner, name), _joined(described, _HOW[manner]))
            failure = _failure(built)
            if failure is None:
                return built
            # What is not built as its constructor asks for fails early, and says nothing of it.
            if failure.stage > furthest.stage:
                furthest = failure
    return _WHY_NOT.get(f"{package}.{name}") or furthest.reason


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _maker(kind: _Kind, make: _Make, manner: Manner, name: str) -> Callable[[], Job]:
    def made() -> Job:
        model = build_model(sparse=name == "SparseAdam")
        torch.manual_seed(0)
        optimizer = make(kind, model)
        train = getattr(optimizer, "train", None)
        if callable(train):  # schedule-free optimizers have modes, as modules have
            with suppress(AttributeError):  # a wrapper's, around an optimizer without modes
                train()
        return Job(model, optimizer, manner)

    return made


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an optimizer does not train by itself.

    Attributes:
        reason: Why.
        stage: How far it came: -1: not at all; 0: it is not built; 1: it is; 2: it has stepped.
    """

    reason: str
    stage: int


def _failure(built: Built) -> _Failure | None:
    """Return why an optimizer does not train by itself; None: it does."""
    stage = 0
    try:
        job = built.make()
        stage = 1
        start = job.weights()
        for step in range(_SHORT):
            job.step(step)
            stage = 2
            if not all(map(torch.equal, start, job.weights())):
                return None
    except ImportError as error:
        return _Failure(f"it needs a package that is not installed: {_text(error)}", stage)
    except Exception as error:  # noqa: BLE001 - any code
        return _Failure(f"{type(error).__name__}: {_text(error)}", stage)
    return _Failure(f"its first {_SHORT} steps move nothing", stage)


def _text(error: BaseException) -> str:
    return str(error)[:300]


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices of the hidden layers."""
    return [p for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("0.")]


def _others(model: nn.Module) -> list[nn.Parameter]:
    matrices = set(map(id, _matrices(model)))
    return [p for p in model.parameters() if id(p) not in matrices]


def _with(*args: Any, **kwargs: Any) -> _Make:
    return lambda kind, model: kind(model.parameters(), *args, **kwargs)


def _around(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
    return kind(torch.optim.AdamW(model.parameters(), lr=1e-3))


def _of_model(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
    return kind(model, lr=1e-3)


def _by_use(flag: str) -> _Make:
    """Return a maker with a group of matrices and a group of the rest, told apart by a flag."""

    def make(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
        return kind([
            {"params": _matrices(model), flag: True},
            {"params": _others(model), flag: False},
        ])

    return make


def _ways(package: str, name: str) -> Sequence[tuple[_Make, str]]:
    """Return ways to build an optimizer, the usual one first."""
    special = _SPECIAL.get(f"{package}.{name}") or _SPECIAL.get(name)
    if special is not None:
        return [special]
    return (
        (_with(), ""),
        (_with(lr=1e-3), "lr=1e-3"),
        (lambda kind, model: kind(_matrices(model)), "matrices only"),
        (_by_use("use_muon"), "groups with use_muon"),
        (_around, "around AdamW"),
    )


_SAM: tuple[_Make, str] = (_with(base_optimizer=torch.optim.SGD, lr=0.01), "base_optimizer=SGD")

_MOMENTUM: tuple[_Make, str] = (_with(lr=0.01, momentum=0.9), "lr=0.01, momentum=0.9")


def _wsam(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
    return kind(model, model.parameters(), torch.optim.SGD, lr=0.01)


def _gsam(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
    base = torch.optim.SGD(model.parameters(), lr=0.01)
    schedulers: Any = importlib.import_module("pytorch_optimizer")
    plan = torch.optim.lr_scheduler.ConstantLR(base, factor=1.0)
    rho = schedulers.ProportionScheduler(plan, max_lr=0.01, max_value=0.05, min_value=0.05)
    return kind(model.parameters(), base, model, rho)


def _split_opt(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
    heavyball: Any = importlib.import_module("heavyball")
    return kind([
        {"params": _matrices(model), "optimizer": heavyball.Muon, "lr": 0.01},
        {"params": _others(model), "optimizer": heavyball.AdamW, "lr": 1e-3},
    ])


def _in_a_group(make: _Make) -> _Make:
    """Return a maker of an optimizer that exchanges its updates with other processes."""

    def made(kind: _Kind, model: nn.Module) -> torch.optim.Optimizer:
        if not dist.is_initialized():
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        return make(kind, model)

    return made


_SPECIAL: dict[str, tuple[_Make, str]] = {
    "SparseAdam": (lambda kind, model: kind(list(model.parameters())[:1]), "embedding only"),
    "SAM": _SAM,
    "bitsandbytes.SGD": _MOMENTUM,
    "bitsandbytes.SGD8bit": _MOMENTUM,
    "bitsandbytes.SGD32bit": _MOMENTUM,
    "bitsandbytes.LARS": _MOMENTUM,
    "bitsandbytes.LARS8bit": _MOMENTUM,
    "bitsandbytes.LARS32bit": _MOMENTUM,
    "bitsandbytes.PytorchLARS": _MOMENTUM,
    "pytorch_optimizer.AdaShift": (_with(keep_num=2), "keep_num=2"),
    "pytorch_optimizer.DeMo": (_in_a_group(_with()), "in a process group of one"),
    "pytorch_optimizer.DistributedMuon": (
        _in_a_group(_by_use("use_muon")),
        "groups with use_muon, in a process group of one",
    ),
    "pytorch_optimizer.GSAM": (_gsam, "base_optimizer=SGD"),
    "pytorch_optimizer.SafeFP16Optimizer": (_around, "around AdamW"),
    "pytorch_optimizer.WSAM": (_wsam, "base_optimizer=SGD"),
    "heavyball.SplitOpt": (_split_opt, "Muon for matrices, AdamW for the rest"),
    "FriendlySAM": _SAM,
    "LookSAM": _SAM,
    "AdamMini": (_of_model, ""),
    "BSAM": (_with(num_data=1000), "num_data=1000"),
    "Ranger21": (_with(num_iterations=100), "num_iterations=100"),
}
"""How classes are built whose constructors ask for more than parameters."""

_MANNERS_OF: dict[str, tuple[Manner, ...]] = {
    "pytorch_optimizer.BSAM": ("backward_and_closure",),
    "pytorch_optimizer.GSAM": ("closure_of_outputs",),
    "pytorch_optimizer.SafeFP16Optimizer": ("own_backward",),
}
"""How classes are stepped that ask for a manner of their own."""

_NOT_TRIED: dict[str, str] = {
    "pytorch_optimizer.LOMO": "it steps inside backward(), one tensor after the other",
    "pytorch_optimizer.AdaLOMO": "it steps inside backward(), one tensor after the other",
}
"""Why classes are not tried."""

_TOO_SMALL = (
    "its step fails: it keeps one average in a state that its step expects two in; AdEMAMix, the "
    "same algorithm, works"
)

_WHY_NOT: dict[str, str] = {
    "bitsandbytes.AdEMAMix32bit": _TOO_SMALL,
    "bitsandbytes.PagedAdEMAMix32bit": _TOO_SMALL,
    "torchao.CPUOffloadOptimizer": "it needs a CUDA or XPU device",
}
"""Why classes fail here, in words; said only if they do."""
