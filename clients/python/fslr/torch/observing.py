"""Looks on as an optimizer steps: counts steps, measures those that are due, harms none."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from fslr.torch.estimators import RateEstimate
from fslr.torch.groups import ModelGroups
from fslr.torch.measuring import MeasuringOptions, StepMeter
from fslr.torch.optimizer import StepScaler

_log = logging.getLogger("fslr")


class StepObserver(ABC):
    """Hooks an optimizer's step; the training loop stays as it is.

    After the first measured step no exception leaves the hooks: it is logged once, and counted.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer.
        options: How to measure.
        strict: Whether the first measurement's errors are raised.

    Raises:
        AttachError: The optimizer does not fit the model.
        MeasurementError: A layer type cannot be measured.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: MeasuringOptions,
        *,
        strict: bool,
    ) -> None:
        self.groups = ModelGroups(model, optimizer)
        self.step = 0
        self.failures = 0
        self._strict = strict
        self._started = False
        self._due = False
        self._meter = StepMeter(model, self.groups, options)
        self._scaler = StepScaler(optimizer, [group.parameter for group in self.groups])
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
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

    @abstractmethod
    def _is_due(self) -> bool:
        """Return whether the step that begins is to be measured."""

    @abstractmethod
    def _take_news(self) -> None:
        """Take what came in since the last step."""

    @abstractmethod
    def _scale(self) -> None:
        """Put the multipliers in force for the step that begins."""

    @abstractmethod
    def _in_force(self) -> list[float]:
        """Return the multiplier of each group in the step that ended."""

    @abstractmethod
    def _take(self, estimate: RateEstimate, scheduled: list[float]) -> None:
        """Act on a measurement of the step that ended."""

    def _before(self, *_: Any) -> None:
        # One after the other, each on its own: whatever goes wrong before, the step is scaled.
        self._due = False
        for act in (self._scaler.restore, self._take_news, self._begin_if_due, self._scale):
            try:
                act()
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
                self._absorb(error)

    def _begin_if_due(self) -> None:
        # A step at learning rate 0 (the first of a warm-up) moves nothing to be measured.
        if self._is_due() and any(rate > 0 for rate in self._scaler.scheduled()):
            self._meter.begin_step()
            self._due = True

    def _after(self, *_: Any) -> None:
        try:
            self._scaler.restore()
            if self._due:
                scheduled = self._scaler.scheduled()
                rates = [rate * m for rate, m in zip(scheduled, self._in_force(), strict=True)]
                self._take(self._meter.end_step(rates), scheduled)
                self._started = True
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
            self._absorb(error)
        finally:
            self._meter.forget_step()
            self._due = False
            self.step += 1

    def _absorb(self, error: Exception) -> None:
        """Log an exception the first time; raise it if it belongs to a strict start.

        Raises:
            error: The start is strict, and nothing was measured before.
        """
        if self._strict and not self._started:
            raise error
        self._started = True
        self.failures += 1
        if self.failures == 1:
            _log.warning(
                "step %d was not measured, training goes on as it is: %s: %s",
                self.step,
                type(error).__name__,
                error,
            )
