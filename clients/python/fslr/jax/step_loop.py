"""Connects a training loop with a step cycle: what happens before and after each step.

JAX has no hooks, so the loop passes the model and the optimizer's state before each step, and what
the step returned after it. References are dropped as soon as possible, since they keep memory in
use.
"""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Callable
from typing import Any

from fslr.errors import AttachError
from fslr.jax.learning_rates import LearningRates
from fslr.jax.model_forms import changes_in_place, state_of, with_state
from fslr.jax.step_meter import Step, StepMeter
from fslr.jax.step_scaler import StepScaler
from fslr.training.cadence import Cadence
from fslr.training.events import StepPart
from fslr.training.step_cycle import StepCycle


class StepLoop:
    """Calls a step cycle before and after each step of a training.

    Args:
        cycle: Is called before and after each step.
        meter: Measures the steps.
        scaler: Scales them.
        learning_rates: The scheduled learning rates.
        cadence: Says which steps are measured, and receives failures.
        accumulate_steps: Number of calls of the training step that make one optimizer step, >= 1.

    Raises:
        AttachError: ``accumulate_steps`` is below 1.
    """

    def __init__(
        self,
        cycle: StepCycle,
        meter: StepMeter,
        scaler: StepScaler,
        learning_rates: LearningRates,
        *,
        cadence: Cadence,
        accumulate_steps: int,
    ) -> None:
        if accumulate_steps < 1:
            raise AttachError(
                f"accumulate_steps is {accumulate_steps}; it must be at least 1, for an optimizer "
                "that steps at each call"
            )
        self._cycle, self._meter, self._scaler = cycle, meter, scaler
        self._learning_rates = learning_rates
        self._cadence = cadence
        self._accumulate_steps = accumulate_steps
        self._calls = 0  # since the latest step of the optimizer
        self._is_closed = False
        meter.stopwatch = cadence.stopwatch

    @property
    def is_due(self) -> bool:
        """Whether the step under way is measured."""
        return self._cadence.is_due

    def before_step(self, model: Any, optimizer: Any) -> Any:
        """Prepare a step; returns the optimizer to step with.

        Args:
            model: The model.
            optimizer: The optimizer's state, or an ``nnx.Optimizer``.
        """
        if self._is_closed or self._calls:
            return optimizer
        with self._cadence.attempt(StepPart.SCALING):
            state = self._scaler.opt_state = state_of(optimizer)
            self._meter.step = Step(model)
            self._cycle.before_step()
            if self._scaler.opt_state is not state:
                optimizer = with_state(optimizer, self._scaler.opt_state)
        self.release()
        return optimizer

    def after_step(self, model: Any, optimizer: Any, batch: Any) -> Any:
        """Measure a step if it is due; returns the model to continue with.

        Args:
            model: The model that the step returned.
            optimizer: The optimizer's state that the step returned, or an ``nnx.Optimizer``.
            batch: The batch that it was trained on.
        """
        if self._is_closed:
            return model
        self._calls = (self._calls + 1) % self._accumulate_steps
        if self._calls:
            return model
        with self._cadence.attempt(StepPart.MEASUREMENT):
            self._scaler.opt_state = state_of(optimizer)
            self._meter.step = Step(model, batch)
            if self.is_due:
                self._learning_rates.follow(self._scaler.opt_state)
            self._cycle.after_step()
            model = self._meter.step.model
            self._learning_rates.end_step(self._scaler.opt_state)
        self.release()
        return model

    def release(self) -> None:
        """Drop references to models and states."""
        self._scaler.opt_state = None
        self._meter.step = Step(None)

    def close(self) -> None:
        """Leave later steps alone."""
        self._is_closed = True
        self._meter.forget_step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {"calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        self._calls = int(state["calls"])
        self._scaler.forget()
        self._learning_rates.count = self._cadence.step


class SteppedByLoop(ABC):
    """What a training loop calls on an attachment or a recorder."""

    _loop: StepLoop

    def before_step(self, model: Any, optimizer: Any) -> Any:
        """Prepare a step, and decide whether to measure it.

        Call it right before each training step. It does not wait for the device, unless the step is
        measured. Nothing is raised, except at a strict start. An attachment puts the newest
        multipliers in force.

        Args:
            model: The model or its parameters, as they were attached.
            optimizer: The optimizer's state, or an ``nnx.Optimizer``, which is changed in place.

        Returns:
            The optimizer's state to step with.
        """
        return self._loop.before_step(model, optimizer)

    def after_step(self, model: Any, optimizer: Any, batch: Any) -> Any:
        """Measure the step, if it is due. Call it right after each training step.

        The step before may have donated the model and the optimizer's state, but not the batch.
        Nothing is raised, except at a strict start.

        Args:
            model: The model or the parameters that the step returned.
            optimizer: The optimizer's state that the step returned, or an ``nnx.Optimizer``.
            batch: The batch of the step, as ``apply_fn`` takes it.

        Returns:
            The model to continue with. It differs from what was passed only with an attachment,
            after the first step, which is taken with the first answer. A module of Flax nnx is
            changed in place.
        """
        return self._loop.after_step(model, optimizer, batch)

    def wrap(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a training step that calls :meth:`before_step` and :meth:`after_step` by itself.

        Args:
            train_step: A function of (model, optimizer, batch, ...). It returns a tuple that begins
                with the model and the optimizer's state, unless it changes a module of Flax nnx in
                place. The batch is what ``apply_fn`` takes.

        Raises:
            AttachError: From each step that returns something else.
        """

        @functools.wraps(train_step)
        def step(model: Any, optimizer: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
            optimizer = self.before_step(model, optimizer)
            result = train_step(model, optimizer, batch, *args, **kwargs)
            if changes_in_place(model):
                self.after_step(model, optimizer, batch)
                return result
            if not isinstance(result, tuple) or len(result) < 2:
                raise AttachError(
                    f"the training step returned a {type(result).__name__}; it must return a tuple "
                    "that begins with the model (or its parameters) and the optimizer's state"
                )
            model, optimizer, *rest = result
            return (self.after_step(model, optimizer, batch), optimizer, *rest)

        return step
