"""Records the unit rates of a training as a profile; the training stays bit-identical."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fslr.jax.groups import ModelGroups
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.step_loop import SteppedByLoop
from fslr.jax.step_meter import Apply
from fslr.jax.training import TrainingParts, TrainingSpec
from fslr.training.attached_training import RecordedTraining
from fslr.training.events import Listener
from fslr.training.recording import Provenance, Recording


class Recorder(SteppedByLoop, RecordedTraining):
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
        recording = Recording(
            parts.layout(),
            optimizer=parts.optimizer,
            every=every,
            dense_start_steps=dense_start_steps,
            listeners=parts.listeners,
        )
        self._loop = parts.loop(recording)
        super().__init__(
            recording,
            parts.meter,
            {"meter": parts.meter, "loop": self._loop},
            provenance=provenance,
            peak_learning_rate=parts.learning_rates.peak,
        )

    def close(self) -> None:
        """Leave later steps alone; what was recorded stays available."""
        self._loop.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; what was recorded so far is part of it.

        It holds plain values that JSON can represent.
        """
        state = super().state_dict()
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
        super().load_state_dict({**state, **({"run": run} if run else {})})
