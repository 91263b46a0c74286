"""Calls a step cycle before and after each step of PyTorch optimizers."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fslr.errors import AttachError, MeasurementError
from fslr.torch.calls.training_calls import NoTimer, Timer
from fslr.torch.optimizers import inner_optimizers, with_held
from fslr.torch.steps.split_groups import mark_as_own, owner_of
from fslr.torch.steps.step_scaler import StepScaler

_T = TypeVar("_T")
_WRAPPER_CODE = torch.optim.Optimizer.profile_hook_step(lambda *_: None).__code__


class Cycle(Protocol):
    """What is called before and after the steps."""

    def model_called(self) -> None:
        """Take note that the training calls the model."""
        ...

    def before_step(self, members: Collection[int]) -> None:
        """Prepare a step of optimizers, given by their places in the scaler's list."""
        ...

    def after_step(self, members: Collection[int]) -> None:
        """Act on the step that they have made."""
        ...

    def step_failed(self, error: Exception) -> None:
        """Take note that a step could not be scaled."""
        ...

    @property
    def applied(self) -> Sequence[float]:
        """What each parameter's step was multiplied by, in layout order; may be empty."""
        ...


class Calls(Protocol):
    """Knows whether the training has called the model."""

    was_called: bool


class Watch(Protocol):
    """Is told of calls and steps."""

    def called(self) -> None:
        """Take note that the training calls the model."""
        ...

    def stepped(self) -> None:
        """Take note of a step."""
        ...


class Check(Protocol):
    """Is told of steps that did not follow their multipliers."""

    def does_not_follow(self, optimizer: torch.optim.Optimizer, reason: str) -> None:
        """Act on it."""
        ...


class StepHooks:
    """The hooks of one or several optimizers; the training loop does not change.

    An optimizer that wraps or combines others makes one step together with them, and so does one
    whose ``step`` calls that of its base class.

    Args:
        optimizers: The optimizers, as their user passes them.
        cycle: Is called before and after each step.
        scaler: Scales the steps.
        calls: Knows whether the training has called the model.
        watch: Is told of calls and steps.
        check: Is told of steps that did not follow their multipliers.
        timer: Times what the hooks do.

    Attributes:
        model_called_compiled: Takes note that compiled code calls the model; it never raises.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        cycle: Cycle,
        scaler: StepScaler,
        calls: Calls | None = None,
        *,
        watch: Watch | None = None,
        check: Check | None = None,
        timer: Timer | None = None,
    ) -> None:
        self._calls, self._watch, self._check = calls, watch, check
        self._timer = timer or NoTimer()
        self._cycle = cycle
        self._scaler = scaler
        places = {id(optimizer): place for place, optimizer in enumerate(scaler.inner)}
        self._members: dict[int, list[int]] = {}
        hooked: list[torch.optim.Optimizer] = []
        for optimizer in optimizers:
            for one in with_held(optimizer):
                if id(one) not in self._members:
                    hooked.append(one)
                    inner = [one, *inner_optimizers(one)]
                    self._members[id(one)] = sorted({
                        places[id(i)] for i in inner if id(i) in places
                    })
        self._is_closed = False
        self._owner: weakref.ref[object] | None = None
        self._on_abandoned: Callable[[], None] = self.close
        self._handles: list[Any] = []
        self._hooked = hooked
        # The step may be compiled, but not what is done around it.
        disable: Any = torch.compiler.disable
        self.model_called_compiled: Callable[[], None] = disable(self._note_compiled_call)
        self._before = mark_as_own(disable(self._before_step), self)
        self._after = mark_as_own(disable(self._after_step), self)
        self._pre_handles = [(o, o.register_step_pre_hook(self._before)) for o in hooked]
        self._post_handles = [(o, o.register_step_post_hook(self._after)) for o in hooked]
        for optimizer in hooked:
            # A step that raised left what it wrote in split groups, and no hook runs after it.
            if hasattr(optimizer, "_optimizer_state_dict_pre_hooks"):  # wrappers may lack it
                self._handles.append(optimizer.register_state_dict_pre_hook(self.restore))
            if hasattr(optimizer, "_optimizer_load_state_dict_pre_hooks"):
                self._handles.append(optimizer.register_load_state_dict_pre_hook(self.restore))

    def owned_by(self, attachment: object, on_abandoned: Callable[[], None]) -> None:
        """Take note of the attachment that scales steps by these hooks.

        Args:
            attachment: The attachment; it is not kept alive.
            on_abandoned: What to call when another one takes the place of it, once it is garbage.
        """
        self._owner = weakref.ref(attachment)
        self._on_abandoned = on_abandoned

    @property
    def owner(self) -> object | None:
        """The attachment that scales steps by these hooks, or None if there is none any more."""
        return None if self._owner is None else self._owner()

    @property
    def is_abandoned(self) -> bool:
        """Whether the attachment was dropped without being closed."""
        return self._owner is not None and self._owner() is None

    def abandon(self) -> None:
        """Remove the hooks in place of an attachment that was dropped."""
        self.close()
        self._on_abandoned()

    def model_called(self) -> None:
        """Take note that the model is called, unless a step calls it."""
        if not _running(self._members):
            self._order(self._pre_handles, "_optimizer_step_pre_hooks", last=True)
            if self._watch is not None:
                self._attempt(self._watch.called)
            self._take_call()

    def _note_compiled_call(self) -> None:
        if self._watch is None or self._is_closed or _running(self._members):
            return
        with suppress(Exception):  # the call is not counted then
            self._watch.called()

    def _attempt(self, action: Callable[..., _T], *args: Any) -> _T | None:
        """Return the result of an action; the cycle gets what it raises."""
        try:
            return action(*args)
        except Exception as error:  # noqa: BLE001 - it would end the training
            self._cycle.step_failed(error)
            return None

    def _take_call(self) -> None:
        if self._calls is not None and self._calls.was_called:
            self._cycle.model_called()
            self._calls.was_called = False

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        running = _running(self._members)
        if self._is_closed or running.count(id(optimizer)) > 1:
            return None  # the step function calls that of its base class
        self._timer.begin_hooks()
        try:
            return self._begin_step(optimizer, args, kwargs, is_outermost=len(running) <= 1)
        finally:
            self._timer.end_hooks()

    def _begin_step(
        self,
        optimizer: torch.optim.Optimizer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_outermost: bool,
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if is_outermost:
            self._order(self._post_handles, "_optimizer_step_post_hooks", last=False)
            if self._watch is not None:
                self._attempt(self._watch.stepped)
            self._take_call()
            self._cycle.before_step(self._members[id(optimizer)])
        return self._attempt(self._scaler.entered, optimizer, args, kwargs)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        running = _running(self._members)
        if self._is_closed or running.count(id(optimizer)) > 1:
            return
        self._timer.begin_hooks()
        try:
            self._end_step(optimizer, is_outermost=len(running) <= 1)
        finally:
            self._timer.end_hooks()

    def _end_step(self, optimizer: torch.optim.Optimizer, *, is_outermost: bool) -> None:
        self._attempt(self._leave, optimizer)
        if is_outermost:
            self._attempt(self._note_other_multipliers)
            if self._calls is not None:
                self._calls.was_called = False  # within the step
            self._cycle.after_step(self._members[id(optimizer)])

    def _leave(self, optimizer: torch.optim.Optimizer) -> None:
        """Take note that an optimizer's step function has returned.

        Raises:
            MeasurementError: The step did not follow its multipliers.
        """
        reason = self._scaler.left(optimizer)
        if reason and self._check is not None:
            self._check.does_not_follow(optimizer, reason)
        if reason:
            raise MeasurementError(
                f"the step was not multiplied by the multipliers, because {reason}"
            )

    def _note_other_multipliers(self) -> None:
        """Note what attachments other than the own one multiplied the step by."""
        self._scaler.other_multipliers = {}
        hooks = 0
        for optimizer in self._scaler.inner:
            hooks = max(hooks, len(optimizer._optimizer_step_pre_hooks))  # noqa: SLF001
        if hooks <= 1:
            return  # as nearly always: the only one is the own one
        self._scaler.other_multipliers = {
            id(parameter): multiplier
            for optimizer in self._scaler.inner
            for hook in list(optimizer._optimizer_step_pre_hooks.values())  # noqa: SLF001
            if (other := hooks_of(hook)) is not None and other is not self and other.is_owned
            for parameter, multiplier in other.applied
        }

    @property
    def is_owned(self) -> bool:
        """Whether an attachment scales steps by these hooks."""
        return self._owner is not None and not self._is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the hooks do nothing any more."""
        return self._is_closed

    @property
    def applied(self) -> Iterator[tuple[Tensor, float]]:
        """What the latest step of each parameter was multiplied by."""
        return zip(self._scaler.parameters, self._cycle.applied, strict=False)

    def _order(self, handles: list[tuple[Any, Any]], name: str, *, last: bool) -> None:
        """Let the own pre-hooks run last, and the own post-hooks first.

        So other hooks find the optimizer and the weights between steps, and what they write counts.
        """
        for optimizer, handle in handles:
            hooks = getattr(optimizer, name, None)
            if not hooks or len(hooks) == 1:  # as nearly always: there is no order
                continue
            if handle.id not in hooks or not hasattr(hooks, "move_to_end"):
                continue
            if last:
                if next(reversed(hooks)) != handle.id:
                    hooks.move_to_end(handle.id)
                continue
            # Attachments come before recorders, which are to see the scaled step.
            scaling = [
                key
                for key, hook in hooks.items()
                if key != handle.id and (other := hooks_of(hook)) is not None and other.is_owned
            ]
            wanted = [*scaling, handle.id]
            if list(itertools.islice(hooks, len(wanted))) != wanted:
                for key in reversed(wanted):
                    hooks.move_to_end(key, last=False)

    def restore(self, *_: Any) -> None:
        """Copy what a step that raised wrote into split groups to the optimizers' own."""
        if not _running(self._members):  # a closure may save a checkpoint
            self._attempt(self._scaler.restore)

    def close(self) -> None:
        """Remove the hooks; the optimizers continue at the scheduled learning rates.

        PyTorch cannot go on with its hooks if one is removed during a step. So within a step they
        stay, do nothing, and are removed when something else is attached.
        """
        self._is_closed = True
        self._scaler.disarm()
        if not _running(self._members):
            self.remove()

    def remove(self) -> None:
        """Remove the hooks from the optimizers."""
        for handle in self._handles:
            handle.remove()
        for _, handle in (*self._pre_handles, *self._post_handles):
            handle.remove()


def refuse_attached(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Refuse optimizers whose steps are scaled already.

    An attachment that was dropped without being closed is closed.

    Args:
        optimizers: The optimizers, as their user passes them.

    Raises:
        AttachError: An attachment scales the steps of one of them.
    """
    for optimizer in optimizers:
        for one in with_held(optimizer):
            for hooks in filter(None, map(hooks_of, list(one._optimizer_step_pre_hooks.values()))):  # noqa: SLF001
                if hooks.is_closed:
                    hooks.remove()
                elif hooks.is_abandoned:
                    hooks.abandon()
                elif hooks.owner is not None:
                    raise AttachError(
                        f"{type(one).__name__} is attached already: {hooks.owner!r}; close that "
                        "attachment first, or use observe_only=True"
                    )


def hooks_of(hook: object) -> StepHooks | None:
    """Return the step hooks that a hook belongs to; None for hooks of others."""
    owner = owner_of(hook)
    return owner if isinstance(owner, StepHooks) else None


def _running(optimizers: Collection[int]) -> list[int]:
    """Return the optimizers whose steps are under way, by id, the innermost first.

    They are read from the stack of calls: no hook runs after a step that ends with an exception, so
    nothing else would be true.

    Args:
        optimizers: Ids of the optimizers to look for.
    """
    found: list[int] = []
    frame = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if frame.f_code is _WRAPPER_CODE:
            stepping = id(frame.f_locals.get("self"))
            if stepping in optimizers:
                found.append(stepping)
        frame = frame.f_back  # type: ignore[assignment]
    return found
