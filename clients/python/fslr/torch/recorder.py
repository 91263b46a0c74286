"""Records the unit rates of a training job as a profile; the training stays bit-identical."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from fslr.torch.calls.training_watch import TrainingWatch
from fslr.torch.distributed import Group, ranks_of, uneven_steps
from fslr.torch.measuring_options import MeasuringOptions
from fslr.torch.model.groups import ModelGroups, check_model
from fslr.torch.optimizers import Optimizers, checked_optimizers, name_of
from fslr.torch.step_meter import StepMeter
from fslr.torch.steps.step_hooks import StepHooks
from fslr.torch.steps.step_scaler import StepScaler
from fslr.torch.steps.weight_decay import WeightDecay, exclusion_warning
from fslr.training.argument_checks import checked_options
from fslr.training.attached_training import RecordedTraining, as_provenance
from fslr.training.events import Listener, Listeners, Warned
from fslr.training.recording import Provenance, Recording
from fslr.training.rounds import Rounds
from fslr.training.step_cycle import StepCycle


class Recorder(RecordedTraining):
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
            model and nothing says how, or ``options`` is something else.
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
        provenance = as_provenance(provenance)  # before anything is hooked
        optimizers = checked_optimizers(optimizer)
        self.groups = ModelGroups(model, optimizers)
        receivers = Listeners.with_log(listeners)
        recording = Recording(
            self.groups.layout(),
            optimizer=name_of(optimizers),
            every=every,
            dense_start_steps=dense_start_steps,
            listeners=receivers,
        )
        recording.cadence.start_at(first_step)
        ranks = ranks_of(model, process_group)
        scaler = StepScaler(optimizers, [group.parameter for group in self.groups])
        options = checked_options(options, MeasuringOptions, package="fslr.torch")
        self._meter = StepMeter(model, self.groups, options, ranks, receivers)
        super().__init__(recording, self._meter, {"meter": self._meter}, provenance=provenance)
        decays = [WeightDecay(inner) for inner in scaler.inner]
        if options.exclude_weight_decay and (warning := exclusion_warning(decays)):
            receivers.emit(Warned(0, warning))
        cycle = StepCycle(
            recording,
            self._meter,
            scaler,
            listeners=receivers,
            rounds=Rounds(len(scaler.inner)),
            uneven_steps=partial(uneven_steps, model) if ranks.count > 1 else str,
        )
        self._watch = TrainingWatch(model, self.groups, scaler.inner, receivers)
        self._hooks = StepHooks(optimizers, cycle, scaler, self._meter.calls, watch=self._watch)
        self._meter.calls.on_call = self._hooks.model_called
        self._meter.calls.releases.action = self._hooks.model_called_compiled

    def close(self) -> None:
        """Detach from the model and the optimizer; what was recorded stays available."""
        self._recording.cadence.close()
        self._watch.closed(was_called=self._meter.calls.was_called)
        self._hooks.close()
        self._meter.close()
