"""What a Lightning ``Trainer`` knows of its training, for attachments and recorders."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Self

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from fslr.errors import AttachError
from fslr.torch.distributed import Group, is_sharded
from fslr.torch.optimizers import parameters_of
from fslr.training.run_info import RunInfo

_log = logging.getLogger("fslr")


def check_trainer(trainer: Any, module: Any, package: Any) -> None:
    """Refuse a trainer whose steps cannot be measured.

    Args:
        trainer: The trainer.
        module: Its ``LightningModule``.
        package: The package that the callback is of.

    Raises:
        AttachError: The trainer is of the other package, or its strategy makes the steps by itself.
    """
    if not isinstance(trainer, package.Trainer) or not isinstance(module, package.LightningModule):
        raise AttachError(
            f"the callback is one of {package.__name__}, and the trainer or the module is not "
            f"(they are of {type(trainer).__module__} and {_root(module)}); import all of them "
            "from one package, and that one before fslr.integrations.lightning"
        )
    strategy = type(trainer.strategy).__name__
    if "DeepSpeed" in strategy:
        raise AttachError(
            f"{strategy}: the backward pass of DeepSpeed makes the optimizer's step, where it can "
            "neither be measured nor scaled; use strategy='ddp', or write what a finished run or a "
            "profile recommends as parameter groups for DeepSpeed: `advisor export --to deepspeed`"
        )


def _root(module: object) -> str:
    return next(
        (k.__module__ for k in type(module).__mro__ if k.__name__ == "LightningModule"), "?"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """What is attached to, at the start of a training.

    Attributes:
        trainer: The trainer.
        net: The network that the ``training_step`` calls.
        optimizers: The optimizers that update it.
    """

    trainer: Any
    net: nn.Module
    optimizers: list[Optimizer]

    @classmethod
    def of(cls, trainer: Any, module: nn.Module, name: str | None) -> Self:
        """Return what to attach to.

        Args:
            trainer: The trainer.
            module: Its ``LightningModule``.
            name: Name of the network inside of it; None: it is found.

        Raises:
            AttachError: There is no network of this name, or several and no name.
        """
        optimizers = list(trainer.optimizers)
        trained = {id(p) for optimizer in optimizers for p in parameters_of(optimizer)}
        net = _named(module, name) if name is not None else _found(trainer, module, trained)
        own = {id(parameter) for parameter in net.parameters()}
        used = [o for o in optimizers if any(id(p) in own for p in parameters_of(o))]
        if not used:
            raise AttachError(
                f"no optimizer updates a parameter of {name or 'the network'!r}; check "
                "configure_optimizers, or name a different part: net=..."
            )
        return cls(trainer, net, used)

    @property
    def process_group(self) -> Group:
        """The processes that train the network; None: one process, or those that shard it."""
        if self.trainer.world_size == 1 or not dist.is_initialized() or is_sharded(self.net):
            return None
        return dist.group.WORLD

    def described_run(self, run: str | RunInfo) -> RunInfo:
        """Return what a run tells the advisor, with the trainer's number of steps.

        Args:
            run: What the user said.
        """
        info = RunInfo(name=run) if isinstance(run, str) else run
        planned = self.trainer.estimated_stepping_batches
        steps = int(planned) if 0 < planned < float("inf") else 0
        return dataclasses.replace(info, total_steps=info.total_steps or steps)

    def first_step(self, saved: object) -> int:
        """Return how many steps the training has made before.

        Args:
            saved: The state that it continues from, or None.
        """
        # The trainer counts the steps of all optimizers.
        steps: int = self.trainer.global_step // len(self.trainer.optimizers)
        if steps and saved is None:
            _log.warning(
                "the training resumes at step %d from a checkpoint without a state of this "
                "callback, so measuring starts anew",
                steps,
            )
        return steps


def _named(module: nn.Module, name: str) -> nn.Module:
    """Return the part of a module that has a name.

    Raises:
        AttachError: There is none.
    """
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        parts = ", ".join(repr(part) for part, _ in module.named_children())
        raise AttachError(
            f"net={name!r} is not a part of {type(module).__name__}; its parts are {parts or '-'}"
        ) from error


def _found(trainer: Any, module: nn.Module, trained: set[int]) -> nn.Module:
    """Return the part of a module that a training calls.

    Raises:
        AttachError: There are several with trained parameters, and no ``forward`` that uses them.
    """
    parts = {
        name: part
        for name, part in module.named_children()
        if any(id(parameter) in trained for parameter in part.parameters())
    }
    loose = any(id(parameter) in trained for parameter in module.parameters(recurse=False))
    if len(parts) == 1 and not loose:
        return next(iter(parts.values()))
    # A wrapper of several processes calls the module itself, with the arguments of training_step.
    if trainer.world_size == 1 and "forward" in _overridden(module):
        return module
    listed = ", ".join(map(repr, parts)) or "none"
    raise AttachError(
        f"{type(module).__name__} has several parts with trained parameters ({listed}"
        f"{', and parameters of its own' if loose else ''}), and what its training_step calls is "
        "not known; name the part with net=..., or put what is trained together into one module"
    )


def _overridden(module: nn.Module) -> set[str]:
    """Return the names in the classes of a module below ``LightningModule``."""
    names: set[str] = set()
    for kind in type(module).__mro__:
        if kind.__name__ == "LightningModule":
            break
        names |= vars(kind).keys()
    return names
