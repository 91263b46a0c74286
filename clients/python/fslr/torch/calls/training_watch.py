"""Notices trainings that an attachment or a recorder does not see, or not all of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fslr.torch.model.forward import unwrap
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.sharding import is_shard
from fslr.torch.optimizers import are_same
from fslr.training.events import Listeners, Warned

_MAX_CALLS = 500  # of the model without a step; gradients are hardly accumulated for longer
_MAX_MOVES = 3  # of the weights without a step; one may be a checkpoint that is loaded
_FIRST_LOOK = 16  # the step after which the names of the model's parameters are looked at
_MAX_STEPS_BETWEEN_LOOKS = 256
_MAX_NAMES = 4


class TrainingWatch:
    """Watches that the training steps the optimizers, and that these keep their parameters.

    Each thing is said once.

    Args:
        model: The model.
        groups: Its groups.
        optimizers: The optimizers that make the steps.
        listeners: Receive warnings.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        optimizers: Sequence[torch.optim.Optimizer],
        listeners: Listeners,
    ) -> None:
        self._model = unwrap(model)
        self._optimizers = optimizers
        self._listeners = listeners
        self._names = {id(group.parameter): group.name for group in groups}
        self._watched = [group.parameter for group in groups][:: max(1, len(groups) - 1)]
        self._weights = list(self._marks())
        self._calls = self._moves = self._steps = 0
        self._next_look = _FIRST_LOOK
        self._warned_unseen = False
        self._first: list[Tensor] = list(self._parameters())
        self._frozen = [p for p in self._first if id(p) not in self._names]
        self._latest = [list(parameters) for parameters in self._groups()]
        self._foreign: set[str] = set()

    def called(self) -> None:
        """Take note that the training calls the model, outside of steps."""
        if self._warned_unseen:
            return
        self._calls += 1
        if self._calls == 1 and self._steps:
            self._weights = []  # nearly all calls are the only one before a step, which ends this
            return
        weights = list(self._marks())
        moved = bool(self._weights) and weights != self._weights
        self._moves = self._moves + 1 if moved else 0
        self._weights = weights
        if self._moves < _MAX_MOVES and self._calls < _MAX_CALLS:
            return
        self._warn_unseen(
            f"the weights changed {self._moves} times"
            if self._moves >= _MAX_MOVES
            else f"the model was called {self._calls} times"
        )

    def closed(self, *, was_called: bool) -> None:
        """Take note that nothing is attached any more.

        Calls in compiled code are counted late, so what was not seen may be said only here.

        Args:
            was_called: Whether the training has called the model since the last step.
        """
        is_over = self._warned_unseen or self._steps > 0 or not was_called
        if not is_over and self._weights and list(self._marks()) != self._weights:
            self._warn_unseen("the weights changed")

    def _warn_unseen(self, seen: str) -> None:
        """Say what was seen of a training without steps."""
        self._warned_unseen = True
        names = " or ".join(dict.fromkeys(type(o).__name__ for o in self._optimizers))
        self._listeners.emit(
            Warned(
                self._steps,
                f"{seen} without a step() of {names}, so nothing is measured and no multiplier is "
                "applied; attach the optimizer whose step() the training calls, or the one that it "
                "wraps",
            )
        )

    def _marks(self) -> Iterator[tuple[int, int]]:
        """Return what differs once weights were written or replaced, for some of them."""
        for parameter in self._watched:
            if not is_shard(parameter):  # those are gathered and freed
                yield _mark(parameter)

    def stepped(self) -> None:
        """Take note of a step, and look whether the optimizers have the parameters of the start."""
        self._calls = self._moves = 0
        self._warned_unseen = False if self._steps == 0 else self._warned_unseen
        self._steps += 1
        groups = self._groups()
        if len(groups) != len(self._latest) or not all(map(are_same, groups, self._latest)):
            self._latest = [list(parameters) for parameters in groups]
            self._warn_of_changes()
        elif self._steps >= self._next_look:
            self._next_look = self._steps + min(self._steps, _MAX_STEPS_BETWEEN_LOOKS)
            self._warn_of_foreign()
        if any(parameter.requires_grad for parameter in self._frozen):
            self._warn_of_unfrozen()

    def _groups(self) -> list[list[Tensor]]:
        return [group["params"] for one in self._optimizers for group in one.param_groups]

    def _parameters(self) -> Iterator[Tensor]:
        for parameters in self._groups():
            yield from parameters

    def _warn_of_changes(self) -> None:
        """Name the parameters that came, went or were replaced."""
        first, now = {id(p): p for p in self._first}, {id(p): p for p in self._parameters()}
        in_model = {id(p): name for name, p in self._model.named_parameters()}
        came = [in_model.get(key, _shape(now[key])) for key in now if key not in first]
        went = [self._names.get(key, _shape(first[key])) for key in first if key not in now]
        replaced = [name for name in went if name in came]
        parts = [
            _listed("added", [name for name in came if name not in replaced]),
            _listed("removed", [name for name in went if name not in replaced]),
            _listed("replaced", replaced),
        ]
        if not any(parts):
            return  # they are those of the start again
        self._listeners.emit(
            Warned(
                self._steps,
                "the optimizer's parameters are not those of the start: "
                + "; ".join(filter(None, parts))
                + ". Those that are new step at their scheduled learning rates and are not "
                "measured, and those that went have the rate 0; attach again to include them",
            )
        )

    def _warn_of_unfrozen(self) -> None:
        """Name parameters of the optimizer that were frozen at the start and are trained now."""
        in_model = {id(p): name for name, p in self._model.named_parameters()}
        unfrozen = [in_model.get(id(p), _shape(p)) for p in self._frozen if p.requires_grad]
        self._frozen = [p for p in self._frozen if not p.requires_grad]
        self._listeners.emit(
            Warned(
                self._steps,
                f"parameters are trained that were frozen at the start: "
                f"{_listed('unfrozen', unfrozen)}. They step at their scheduled learning rates and "
                "are not measured; attach again to include them",
            )
        )

    def _warn_of_foreign(self) -> None:
        """Name groups whose tensor is not a parameter of the model any more."""
        in_model = {id(parameter) for parameter in self._model.parameters()}
        gone = {name for key, name in self._names.items() if key not in in_model} - self._foreign
        latest = {id(parameter) for parameters in self._latest for parameter in parameters}
        gone -= {self._names.get(id(p), "") for p in self._first if id(p) not in latest}
        if not gone:
            return
        self._foreign |= gone
        self._listeners.emit(
            Warned(
                self._steps,
                "the model's parameters are not those of the start: "
                f"{_listed('gone', sorted(gone))}, so the optimizer still steps tensors that the "
                "model does not use; build the optimizer again, and attach again",
            )
        )


def _mark(tensor: Tensor) -> tuple[int, int]:
    try:
        return tensor.data_ptr(), tensor._version  # noqa: SLF001
    except RuntimeError:  # a tensor without a memory of its own, or an inference tensor
        return 0, 0


def _shape(tensor: Tensor) -> str:
    return f"a tensor of shape {tuple(tensor.shape)}"


def _listed(what: str, names: Sequence[str]) -> str:
    """Return names in words; empty if there are none."""
    if not names:
        return ""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{what}: {', '.join(names[:_MAX_NAMES])}{more}"
