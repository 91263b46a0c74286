"""Looks on as an optimizer steps: counts steps, measures those that are due, harms none."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from fslr.errors import AttachError
from fslr.torch.distributed import Group, ranks_of
from fslr.torch.estimators import RateEstimate
from fslr.torch.model.groups import ModelGroups
from fslr.torch.step_meter import MeasuringOptions, StepMeter
from fslr.torch.step_scaler import StepScaler, splitting_hint

_log = logging.getLogger("fslr")

Scaling = Literal["learning_rates", "update"]
"""Where multipliers act: on the learning rates of a step, or on the update that it made."""

_FIRST_PAUSE_STEPS = 25  # after a failed measurement; doubled while they go on failing
_LONGEST_PAUSE_STEPS = 1000
_UNMOVED_STEPS = 8  # in a row: a gradient scaler that begins too high skips as many, hardly more

MEASURING, SCALING, ADVISING = "was not measured", "was not scaled", "has no new advice"
"""What a step lacks when something raised, in the words of the log."""


class StepObserver(ABC):
    """Hooks an optimizer's step; the training loop stays as it is.

    After the first measured step no exception leaves the hooks: it is counted, and logged the first
    time that a step lacks the same.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer.
        options: How to measure.
        strict: Whether the first measurement's errors are raised.
        process_group: Who trains the model together: a process group; ``"alone"``; None: as the
            model's wrapper says.
        scaling: Whether multipliers act on the learning rates during a step, or on its update.

    Raises:
        AttachError: The optimizer does not fit the model, parameters are sharded otherwise than by
            FSDP2, or several processes train the model and nothing says how.
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: MeasuringOptions,
        *,
        strict: bool,
        process_group: Group = None,
        scaling: Scaling = "learning_rates",
    ) -> None:
        if scaling not in get_args(Scaling):
            raise AttachError(
                f"there is no scaling {scaling!r}; there are {', '.join(get_args(Scaling))}"
            )
        self.groups = ModelGroups(model, optimizer)
        self.step = 0
        self.failures = 0
        self._ranks = ranks_of(model, process_group)
        self._strict = strict
        self._started = False
        self._due = False
        self._next = 0
        self._pause_steps = _FIRST_PAUSE_STEPS
        self._unmoved_steps = 0
        self._told_unmoved = False
        self._scales_updates = scaling == "update"
        self._rescales = False  # of the step that is under way
        self._doing = MEASURING
        self._failed_step: int | None = None
        self._said: set[str] = set()
        self._meter = StepMeter(model, self.groups, options, self._ranks)
        self._scaler = StepScaler(optimizer, [group.parameter for group in self.groups])
        self._split_hint = splitting_hint(optimizer, len(self.groups))
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            # A step that raised left its groups split, and has no hook that comes after it.
            optimizer.register_state_dict_pre_hook(self._make_whole),
            optimizer.register_load_state_dict_pre_hook(self._make_whole),
        ]

    def __enter__(self) -> Self:
        """Return the observer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the model and the optimizer."""
        self.close()

    def close(self) -> None:
        """Let go of the model and the optimizer; training goes on at the scheduled rates."""
        for handle in self._handles:
            handle.remove()
        self._meter.close()
        self._scaler.restore()

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured the slow way, with the reason.

        Known from the first measurement on; what to do about it: docs/explanation/measurement.md.
        """
        return self._meter.slow_groups

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs so that a resumed job goes on as this one would.

        It holds no tensors. How batches are to be measured is found anew after loading, by probes
        that no measurement misses.
        """
        return {
            "groups": [group.name for group in self.groups],
            "step": self.step,
            "next": self._next,
            "started": self._started,
            "meter": self._meter.state_dict(),
            "scaler": self._scaler.state_dict(),
            "pause": self._pause_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; whatever is raised, nothing is half loaded.

        Args:
            state: What it returned.

        Raises:
            AttachError: It was taken of a model with other groups.
            KeyError: Something is missing in it.
        """
        names = [group.name for group in self.groups]
        if state["groups"] != names:
            other = sorted(set(state["groups"]) ^ set(names)) or names
            raise AttachError(
                f"the checkpoint was taken of a model with other groups ({len(state['groups'])} "
                f"there, {len(names)} here; first difference: {other[0]!r}); load the one that "
                "belongs to this model"
            )
        before = self.state_dict()
        try:
            self._load(state)
        except BaseException:
            self._load(before)
            raise

    def _load(self, state: dict[str, Any]) -> None:
        """Take a state of these groups; what may fail of it need not come first."""
        self.step, self._next = int(state["step"]), int(state["next"])
        self._started = bool(state["started"])
        self._meter.load_state_dict(state["meter"])
        # Older checkpoints have neither.
        self._pause_steps = int(state.get("pause", _FIRST_PAUSE_STEPS))
        self._scaler.load_state_dict(state.get("scaler", {"notes": [{}] * len(self.groups)}))

    @abstractmethod
    def _take_news(self) -> None:
        """Take what came in since the last step."""

    @abstractmethod
    def _factors(self) -> list[float]:
        """Return the multiplier of each group for the step that begins, or that ended."""

    @abstractmethod
    def _take(self, estimate: RateEstimate, scheduled: list[float]) -> None:
        """Act on a measurement of the step that ended."""

    def _make_whole(self, *_: Any) -> None:
        self._scaler.restore()

    def _before(self, *_: Any) -> None:
        # One after the other, each on its own: whatever goes wrong before, the step is scaled.
        self._due = False
        acts = (
            (SCALING, self._scaler.restore),
            (ADVISING, self._take_news),
            (MEASURING, self._begin),
            (SCALING, self._scale),
        )
        for self._doing, act in acts:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
                self._absorb(error)

    def _begin(self) -> None:
        # A step at learning rate 0 (the first of a warm-up) moves nothing to be measured.
        self._due = self.step >= self._next and any(rate > 0 for rate in self._scaler.scheduled())
        self._rescales = self._scales_updates and any(factor != 1.0 for factor in self._factors())
        if self._due or self._rescales:
            try:
                self._meter.begin_step()
            except BaseException:
                self._rescales = False  # without the weights before, learning rates it is
                raise

    def _scale(self) -> None:
        if self._rescales:
            return
        factors = self._factors()
        self._scaler.scale(factors)
        if self._split_hint and any(factor != 1.0 for factor in factors):
            _log.info("%s", self._split_hint)
            self._split_hint = ""

    def _after(self, *_: Any) -> None:
        self._doing = SCALING
        try:
            self._scaler.restore()
            if not self._rescales or self._rescaled():
                self._doing = MEASURING
            if self._due:
                self._measure()
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
            self._pause()
            self._absorb(error)
        finally:
            self._meter.forget_step()
            self._due = False
            self.step += 1

    def _rescaled(self) -> bool:
        """Scale the step's update; return whether that is done, or for the measurement to raise."""
        try:
            self._meter.rescale_step(self._factors())
        except Exception as error:
            if not self._due:
                raise
            self._meter.spoil_step(error)  # other ranks measure the step, and wait for this one
            return False
        return True

    def _measure(self) -> None:
        scheduled = self._scaler.scheduled()
        rates = [rate * m for rate, m in zip(scheduled, self._factors(), strict=True)]
        estimate = self._meter.end_step(rates)
        if not any(estimate.unit_rates):
            self._note_unmoved()
            return
        self._unmoved_steps = 0
        self._take(estimate, scheduled)
        self._started = True
        self._pause_steps = _FIRST_PAUSE_STEPS

    def _note_unmoved(self) -> None:
        """Let the next step be measured, for this one may have been skipped; or pause."""
        self._unmoved_steps += 1
        if self._unmoved_steps < _UNMOVED_STEPS:
            return
        self._pause()
        if not self._told_unmoved:
            self._told_unmoved = True
            _log.warning(
                "%d steps in a row moved no output of the model; the next measurement is at step "
                "%d; see that the optimizer's steps are not skipped, and that the output depends "
                "on the parameters that it updates",
                self._unmoved_steps,
                self._next,
            )

    def _pause(self) -> None:
        self._next = self.step + self._pause_steps
        self._pause_steps = min(2 * self._pause_steps, _LONGEST_PAUSE_STEPS)

    def _absorb(self, error: Exception) -> None:
        """Count an exception, and log the first of its kind; raise it at a strict start.

        A step counts once, however much of it fails; advice that is missing is counted by those who
        ask for it.

        Raises:
            error: The start is strict, and nothing was measured before.
        """
        if self._strict and not self._started:
            raise error
        self._started = True
        if self._doing != ADVISING and self._failed_step != self.step:
            self.failures += 1
            self._failed_step = self.step
        if self._doing not in self._said:
            self._said.add(self._doing)
            _log.warning(
                "step %d %s, training goes on as it is: %s: %s",
                self.step,
                self._doing,
                type(error).__name__,
                error,
            )
