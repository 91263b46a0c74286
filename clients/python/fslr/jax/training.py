"""The parts that an attachment and a recorder have in common, built and checked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from fslr.advisor.v1 import layout_pb2
from fslr.errors import AttachError
from fslr.jax.groups import ModelGroups
from fslr.jax.learning_rates import LearningRates
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.model_forms import form_of, state_of
from fslr.jax.optimizer_names import optimizer_name, optimizers_of_leaves
from fslr.jax.step_loop import StepLoop
from fslr.jax.step_meter import Apply, StepMeter
from fslr.jax.step_scaler import StepScaler
from fslr.jax.weight_decay import exclusion_warning
from fslr.training.argument_checks import checked_options
from fslr.training.cycle_parts import Run
from fslr.training.events import Listener, Listeners, Warned
from fslr.training.step_cycle import StepCycle


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What a user says about a training.

    Attributes:
        apply_fn: Returns the outputs of the model for a batch.
        model: The model, or its parameters.
        optimizer: The optimizer's state, or an ``nnx.Optimizer``.
        learning_rate: A number, a schedule, or a pytree of them; None: that in the state.
        optimizer_name: The optimizer's name; empty: found in its state.
        stacked: The axis that counts layers, by the name of a leaf or of a subtree.
        accumulate_steps: Number of calls of the training step for each step of the optimizer; None:
            1, and an optimizer that accumulates gradients is refused.
        options: How to measure.
        listeners: Called with each event.
    """

    apply_fn: Apply
    model: Any
    optimizer: Any
    learning_rate: Any = None
    optimizer_name: str = ""
    stacked: Mapping[str, int] | None = None
    accumulate_steps: int | None = None
    options: MeasuringOptions | None = None
    listeners: Sequence[Listener] = ()


class TrainingParts:
    """The groups, the meter and the scaler of a training.

    Args:
        spec: What the user says about it.

    Attributes:
        groups: The model's groups.
        meter: Measures its steps.
        scaler: Scales them.
        learning_rates: The scheduled learning rates.
        listeners: Receive what happens.
        opt_state: The optimizer's state at the start.
        optimizer: The optimizer's name.

    Raises:
        AttachError: The function, the model or the optimizer is something else, or they do not fit
            each other.
        MeasurementError: An option is out of its range.
    """

    def __init__(self, spec: TrainingSpec) -> None:
        if not callable(spec.apply_fn):
            raise AttachError(
                f"apply_fn is a {type(spec.apply_fn).__name__}; it must be a function of (model, "
                "batch) that returns the outputs, such as lambda params, batch: "
                "module.apply(params, batch['inputs'])"
            )
        options = checked_options(spec.options, MeasuringOptions, package="fslr.jax")
        form = form_of(spec.model)
        params = form.split(spec.model).params
        self.groups = ModelGroups(spec.model, form, spec.stacked)
        self.opt_state = _checked_state(spec.optimizer)
        if spec.accumulate_steps is None and _accumulates(self.opt_state):
            raise AttachError(
                "the optimizer accumulates gradients (optax.MultiSteps); pass accumulate_steps, "
                "the number of batches for each of its steps"
            )
        self.learning_rates = LearningRates(spec.learning_rate, params, self.opt_state)
        self.listeners = Listeners.with_log(spec.listeners)
        self.meter = StepMeter(spec.apply_fn, form, self.groups, options, spec.model)
        self.scaler = StepScaler(self.groups, self.learning_rates, self.opt_state)
        self.optimizer = spec.optimizer_name or optimizer_name(self.opt_state)
        self._accumulate_steps = 1 if spec.accumulate_steps is None else spec.accumulate_steps
        self._params = params
        if options.exclude_weight_decay and (warning := exclusion_warning(self.opt_state)):
            self.listeners.emit(Warned(0, warning))

    def layout(self) -> layout_pb2.Layout:
        """Return the layout message."""
        names = optimizers_of_leaves(self.opt_state, self.groups.leaf_names)
        return self.groups.layout(
            self._params, has_stepped=self.learning_rates.count > 0, optimizers=names
        )

    def loop(self, run: Run, *, kept_hint: str = "", scaled_hint: str = "") -> StepLoop:
        """Return what the training loop calls before and after each step.

        Args:
            run: What steps are reported to.
            kept_hint: What to tell the user once weight decay is to stay the same.
            scaled_hint: What to tell the user once weight decay is scaled.
        """
        if self.learning_rates.count:
            run.cadence.start_at(self.learning_rates.count)
        cycle = StepCycle(
            run,
            self.meter,
            self.scaler,
            listeners=self.listeners,
            kept_decay_hint=kept_hint,
            scaled_decay_hint=scaled_hint,
        )
        loop = StepLoop(
            cycle,
            self.meter,
            self.scaler,
            self.learning_rates,
            cadence=run.cadence,
            accumulate_steps=self._accumulate_steps,
        )
        loop.release()
        self.opt_state = self._params = None
        return loop


def _checked_state(optimizer: Any) -> Any:
    """Return the state of an optimizer.

    Raises:
        AttachError: It is a transformation instead.
    """
    if isinstance(getattr(optimizer, "init", None), Callable) and hasattr(optimizer, "update"):  # type: ignore[arg-type]
        raise AttachError(
            f"the optimizer is a {type(optimizer).__name__}, which has no state; pass what "
            "tx.init(params) returned"
        )
    return state_of(optimizer)


def _accumulates(opt_state: Any) -> bool:
    is_multi = lambda node: type(node).__name__ == "MultiStepsState"  # noqa: E731
    return any(map(is_multi, jax.tree.leaves(opt_state, is_leaf=is_multi)))
