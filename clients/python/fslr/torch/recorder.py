"""Records the unit rates of a training job as a profile; the training stays bit-identical."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import nn

from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.torch.distributed import Group, ranks_of
from fslr.torch.hooks import StepHooks
from fslr.torch.measuring_options import MeasuringOptions
from fslr.torch.model.groups import ModelGroups, check_model
from fslr.torch.optimizers import Optimizers, checked_optimizers, name_of
from fslr.torch.step_meter import StepMeter
from fslr.torch.step_scaler import StepScaler
from fslr.torch.training_watch import TrainingWatch
from fslr.torch.weight_decay import WeightDecay, exclusion_warning
from fslr.training.checkpoints import load_all
from fslr.training.estimate import RateEstimate
from fslr.training.events import Listener, Listeners, LogListener, Warned
from fslr.training.recording import Provenance, Recording, provenance_warning
from fslr.training.step_cycle import StepCycle


class Recorder:
    """Measures every ``every``-th step of a training job, starting with the first.

    While a group that steps has the rate 0, as a layer before a zero-initialized one has at first,
    the steps 1, 2, 4, 8 and so on are measured as well.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer, or a list of several that train it together. They are not
            changed, and schedulers may be attached.
        every: Steps between measurements, >= 1; or a function that returns them for a measured
            step.
        dense_start_steps: While the training is younger than this, >= 0, it is measured again once
            its number of steps has doubled; 16 adds the steps 1, 2, 4, 8 and 16.
        provenance: Where the profile comes from; a string names the model only. If it lacks values
            that registration requires, a warning says so at once.
        options: How to measure.
        process_group: The processes that train the model together: a process group; ``"alone"``;
            None: those of the model's wrapper. All ranks record the same.
        first_step: Number of steps that the training has made before, >= 0, if it is resumed
            without a state to load.
        listeners: Called with each event, such as :class:`fslr.Measured`.

    Attributes:
        groups: The model's groups, in layout order.

    Raises:
        AttachError: An optimizer does not fit the model or has no learning rate, ``every`` is below
            1, ``dense_start_steps`` or ``first_step`` is below 0, or several processes train the
            model and nothing says how.
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        every: int | Callable[[int], int] = 25,
        dense_start_steps: int = 0,
        provenance: Provenance | str | None = None,
        options: MeasuringOptions | None = None,
        process_group: Group = None,
        first_step: int = 0,
        listeners: Sequence[Listener] = (),
    ) -> None:
        check_model(model)
        optimizers = checked_optimizers(optimizer)
        self.groups = ModelGroups(model, optimizers)
        receivers = Listeners([LogListener(), *listeners])
        self._recording = Recording(
            self.groups.layout(),
            optimizer=name_of(optimizers),
            every=every,
            dense_start_steps=dense_start_steps,
            listeners=receivers,
        )
        self._recording.cadence.start_at(first_step)
        self._provenance = Provenance(provenance) if isinstance(provenance, str) else provenance
        if warning := provenance_warning(self._provenance):
            receivers.emit(Warned(0, warning))
        ranks = ranks_of(model, process_group)
        scaler = StepScaler(optimizers, [group.parameter for group in self.groups])
        options = options or MeasuringOptions()
        self._meter = StepMeter(model, self.groups, options, ranks, receivers)
        decays = [WeightDecay(inner) for inner in scaler.inner]
        if options.exclude_weight_decay and (warning := exclusion_warning(decays)):
            receivers.emit(Warned(0, warning))
        cycle = StepCycle(
            self._recording,
            self._meter,
            scaler,
            listeners=receivers,
            optimizers=len(scaler.inner),
        )
        watch = TrainingWatch(model, self.groups, scaler.inner, receivers)
        self._hooks = StepHooks(optimizers, cycle, scaler, self._meter.calls, watch=watch)
        self._meter.calls.on_call = self._hooks.model_called

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
        """Names of the groups that are measured by the slow route, with the reason.

        Empty before the first measurement. See docs/explanation/measurement.md for what to do.
        """
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
        """Detach from the model and the optimizer; what was recorded stays available."""
        self._hooks.close()
        self._meter.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; what was recorded so far is part of it."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called; if it raises, nothing has changed.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state was not saved from a recorder of a model with these groups, by
                this version.
            KeyError: An entry is missing.
        """
        load_all(self._parts(), state)

    def _parts(self) -> dict[str, Recording | StepMeter]:
        return {"run": self._recording, "meter": self._meter}
