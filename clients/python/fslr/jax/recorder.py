"""Records the unit rates of a training as a profile; the training stays bit-identical."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.jax.groups import ModelGroups
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.step_loop import StepLoop, wrapped
from fslr.jax.step_meter import Apply, StepMeter
from fslr.jax.training import TrainingParts, TrainingSpec
from fslr.training.checkpoints import load_all
from fslr.training.estimate import RateEstimate
from fslr.training.events import Listener, Warned
from fslr.training.recording import Provenance, Recording, provenance_warning


class Recorder:
    """Measures every ``every``-th step of a training, starting with the first.

    The loop calls ``before_step`` and ``after_step`` around each training step, or uses a step that
    ``wrap`` returns. The optimizer needs no ``scale_by_advice``; if it has one, its multipliers
    are left at 1.

    Args:
        apply_fn: A pure function of (model, batch) that returns the outputs, such as logits, with a
            dimension that counts the examples.
        model: The parameters (a pytree of floating arrays), an Equinox module, or a module of Flax
            nnx.
        optimizer: The state that ``tx.init(params)`` returned, or an ``nnx.Optimizer``.
        learning_rate: The learning rate or the schedule that the optimizer was built with, or a
            pytree of them whose structure is a prefix of the parameters'. None: what
            ``optax.inject_hyperparams`` keeps in the state.
        every: Steps between measurements, >= 1; or a function that returns them for a measured
            step.
        dense_start_steps: While the training is younger than this, >= 0, it is measured again once
            its number of steps has doubled; 16 adds the steps 1, 2, 4, 8 and 16.
        provenance: Where the profile comes from; a string names the model only. If it lacks values
            that registration requires, a warning says so at once.
        options: How to measure.
        optimizer_name: The optimizer's name. Empty: found in its state.
        stacked: The axis that counts layers, by the name of a leaf or of a subtree, such as
            ``{"blocks": 0}``. Each layer is a group, and has its number in its name.
        accumulate_steps: Number of calls of the training step for each step of the optimizer, as in
            ``optax.MultiSteps``.
        listeners: Called with each event, such as :class:`fslr.Measured`.

    Attributes:
        groups: The model's groups, in layout order.

    Raises:
        AttachError: The parameters, the optimizer, the learning rate or ``stacked`` do not fit each
            other, ``every`` is below 1, or ``dense_start_steps`` is below 0.
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        apply_fn: Apply,
        model: Any,
        optimizer: Any,
        *,
        learning_rate: Any = None,
        every: int | Callable[[int], int] = 25,
        dense_start_steps: int = 0,
        provenance: Provenance | str | None = None,
        options: MeasuringOptions | None = None,
        optimizer_name: str = "",
        stacked: Mapping[str, int] | None = None,
        accumulate_steps: int | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        parts = TrainingParts(
            TrainingSpec(
                apply_fn,
                model,
                optimizer,
                learning_rate=learning_rate,
                optimizer_name=optimizer_name,
                stacked=stacked,
                accumulate_steps=accumulate_steps,
                options=options,
                listeners=listeners,
            )
        )
        self.groups: ModelGroups = parts.groups
        self._meter: StepMeter = parts.meter
        self._learning_rates = parts.learning_rates
        self._recording = Recording(
            parts.layout(),
            optimizer=parts.optimizer,
            every=every,
            dense_start_steps=dense_start_steps,
            listeners=parts.listeners,
        )
        self._provenance = Provenance(provenance) if isinstance(provenance, str) else provenance
        if warning := provenance_warning(self._provenance):
            parts.listeners.emit(Warned(0, warning))
        self._loop: StepLoop = parts.loop(self._recording)

    def before_step(self, model: Any, optimizer: Any) -> Any:
        """Decide whether to measure a step. Call it right before each training step.

        Args:
            model: The model or its parameters.
            optimizer: The optimizer's state, or an ``nnx.Optimizer``.

        Returns:
            The optimizer's state to step with.
        """
        return self._loop.before_step(model, optimizer)

    def after_step(self, model: Any, optimizer: Any, batch: Any) -> Any:
        """Measure the step, if it is due. Call it right after each training step.

        Args:
            model: The model or the parameters that the step returned.
            optimizer: The optimizer's state that the step returned, or an ``nnx.Optimizer``.
            batch: The batch of the step, as ``apply_fn`` takes it.

        Returns:
            The model, unchanged.
        """
        return self._loop.after_step(model, optimizer, batch)

    def wrap(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a training step that calls :meth:`before_step` and :meth:`after_step` by itself.

        Args:
            train_step: A function of (model, optimizer, batch, ...). It returns a tuple that begins
                with the model and the optimizer's state, unless it changes a module of Flax nnx in
                place. The batch is what ``apply_fn`` takes.
        """
        return wrapped(train_step, self)

    @property
    def estimate(self) -> RateEstimate | None:
        """The newest measurement, or None before the first."""
        return self._recording.estimate

    @property
    def step(self) -> int:
        """Number of optimizer steps so far."""
        return self._recording.cadence.step

    @property
    def failures(self) -> int:
        """Number of steps that were due and could not be measured."""
        return self._recording.cadence.failures

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured by a slow route, with the reason."""
        return self._meter.slow_groups

    def profile(
        self,
        provenance: Provenance | str | None = None,
        *,
        base_learning_rate: float | None = None,
        labels: Mapping[str, str] | None = None,
        docs: str = "",
        policy: policy_pb2.Policy | None = None,
        role_templates: Sequence[str] = (),
    ) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            provenance: Where it comes from. A string names the model only. Default: the recorder's.
            base_learning_rate: The learning rate to transfer, absolute. Default: the largest
                scheduled one.
            labels: Key-value pairs to filter lists by.
            docs: A written guideline, in Markdown.
            policy: The rules for runs on the profile.
            role_templates: How block indices are read from names, where they are not found
                automatically: beginnings of names with ``*`` for each index.

        Raises:
            MeasurementError: No step was measured.
        """
        if isinstance(provenance, str):
            provenance = Provenance(provenance)
        self._recording.note_learning_rate(self._learning_rates.peak())
        return self._recording.profile(
            provenance or self._provenance or Provenance(""),
            base_learning_rate=base_learning_rate,
            labels=labels,
            docs=docs,
            policy=policy,
            role_templates=role_templates,
        )

    def __enter__(self) -> Self:
        """Return the recorder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the recorder."""
        self.close()

    def close(self) -> None:
        """Leave later steps alone; what was recorded stays available."""
        self._loop.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; what was recorded so far is part of it.

        It holds plain values that JSON can represent.
        """
        self._recording.note_learning_rate(self._learning_rates.peak())
        state = {name: part.state_dict() for name, part in self._parts().items()}
        points = [base64.b64encode(point).decode() for point in state["run"]["points"]]
        state["run"] = {**state["run"], "points": points}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called; if it raises, nothing has changed.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state was not saved from a recorder of a model with these groups, by
                this version.
            KeyError: An entry is missing.
        """
        run = dict(state.get("run", {}))
        if "points" in run:
            run["points"] = [base64.b64decode(point) for point in run["points"]]
        load_all(self._parts(), {**state, **({"run": run} if run else {})})

    def _parts(self) -> dict[str, Recording | StepMeter | StepLoop]:
        return {"run": self._recording, "meter": self._meter, "loop": self._loop}
