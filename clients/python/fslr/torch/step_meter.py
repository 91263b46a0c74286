"""Measures the unit rates of a training job's own steps, without changing the training.

If a step is measured, a :class:`StepMeter` keeps the weights from before the step. After the step
it measures what the update does to the outputs of the batches that the model was trained on last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.calls.measured_modules import being_measured
from fslr.torch.calls.training_calls import TrainingCalls
from fslr.torch.distributed import Ranks, is_sharded
from fslr.torch.estimators import ProjectionSums, RateEstimate
from fslr.torch.measuring_options import MeasuringOptions
from fslr.torch.model.batch import Batch
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.snapshot import Snapshot, StepView
from fslr.torch.model.update import Update
from fslr.training.adapter_rates import with_joint_rates
from fslr.training.averaging import RunningAverage
from fslr.training.events import Listeners, Warned
from fslr.training.measurement_size import MeasurementSize
from fslr.training.slow_groups import SlowGroupsLog
from fslr.training.summaries import mask_label

_CHANGED_INPUTS = (
    "the inputs of the last training call were written to since the call began, so steps are "
    "measured on what they hold after it; pass the model a copy, or let it not change its inputs"
)
_MAX_RMS = 1e30  # as for rates; larger numbers do not travel as float32


def _with_rms(
    estimate: RateEstimate, sums: Tensor, learning_rates: Sequence[float]
) -> RateEstimate:
    """Return an estimate with the RMS of weights and updates, if all of them are finite.

    Args:
        estimate: The estimate.
        sums: As :meth:`.StepView.sums_of_squares` returns them, over all ranks. A copy on each rank
            counts as often in the number of entries.
        learning_rates: Learning rate of each group, multiplier included.
    """
    weights, changes = (sums[:2] / sums[2].clamp(min=1.0)).sqrt()
    used = torch.tensor(learning_rates, dtype=torch.float64, device="cpu")
    updates = torch.where(used > 0, changes / used, 0.0)
    if not bool(((weights <= _MAX_RMS) & (updates <= _MAX_RMS)).all()):
        return estimate
    return replace(estimate, weight_rms=weights.tolist(), update_rms=updates.tolist())


def _emit_hint(listeners: Listeners, message: str) -> None:
    listeners.emit(Warned(0, message, is_hint=True))


class StepMeter:
    """Measures optimizer steps of a model, together with the other ranks that train it.

    Args:
        model: The model that the training loop calls.
        groups: Its groups.
        options: How to measure.
        ranks: The processes that train the model.
        listeners: Receive what the user should know about the batches.

    Attributes:
        size: How many examples and probes later measurements use.

    Raises:
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        options: MeasuringOptions,
        ranks: Ranks | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        self._model = model
        self._groups = groups
        self._adapters = groups.adapters()
        self._options = options
        self._ranks = ranks or Ranks()
        self._is_sharded = is_sharded(model)
        self._estimator = options.estimator_of(model, groups, self._ranks)
        self.size = MeasurementSize(options.probes, options.examples)
        self._examples = 0  # of the measurement under way, on this rank
        self._slow_groups_log = SlowGroupsLog(len(groups))
        self._listeners = listeners
        self._has_warned_of_changes = False
        if listeners is not None:
            self._estimator.on_notice = partial(_emit_hint, listeners)
        self._average = RunningAverage(options.averaging)
        self._before: Snapshot | None = None
        self._failure: Exception | None = None
        self._calls = TrainingCalls(
            model,
            sorted({group.parameter.device.type for group in groups} | {"cpu"}),
            examples=options.accumulated_examples,
            batch_dim=options.batch_dims[0],
        )

    @property
    def calls(self) -> TrainingCalls:
        """The training's calls of the model."""
        return self._calls

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured by the slow route, with the reason."""
        slow: dict[str, str] = getattr(self._estimator, "slow_groups", {})
        return slow

    @property
    def excludes_decay(self) -> bool:
        """Whether the update is measured without its weight decay."""
        return self._options.exclude_weight_decay

    def wait(self) -> None:
        """Wait until the devices have done what they were asked to."""
        for device in {group.parameter.device for group in self._groups}:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)

    def begin_step(self) -> None:
        """Keep the weights: the step that follows is measured or rescaled."""
        parameters = [group.parameter for group in self._groups]
        self._before = Snapshot(parameters, on_host=self._options.snapshot_on_host)

    def end_step(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> RateEstimate:
        """Measure the step that began with :meth:`begin_step`; all ranks do so together.

        Args:
            learning_rates: Absolute learning rate of each group in the step, including its
                multiplier. A group with 0 did not move and has the unit rate 0.
            uncounted_decays: Which part of each group's weights from before the step is added to
                its update, because it is weight decay that is not to be measured.

        Raises:
            MeasurementError: The model was not called since the last step, or could not be measured
                on this rank or on a different one.
        """
        own: ProjectionSums | None = None
        squares: Tensor | None = None
        failure: Exception | None = None
        try:
            own, squares = self._measured(learning_rates, uncounted_decays)
        except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
            failure = error
        if failure is not None and self._ranks.count == 1:
            raise failure
        try:
            sums = self._ranks.sum(own, len(self._groups))
        except MeasurementError:
            if failure is not None:
                raise failure from None
            raise
        estimate = sums.estimate([group.name for group in self._groups], learning_rates)
        estimate = with_joint_rates(estimate, self._adapters, learning_rates)
        if squares is not None:  # it is on no rank, or no rank gets here
            estimate = _with_rms(estimate, self._ranks.total(squares), learning_rates)
        estimate = replace(
            estimate,
            excludes_weight_decay=self.excludes_decay,
            mask=mask_label(self._options.mask),
        )
        if self._ranks.speaks:
            self._slow_groups_log.measured(self.slow_groups)
        self.size.used(
            self._examples,
            estimate.probes,
            self._estimator.repeats,
            least_per_requested=self._estimator.probes_per_requested,
        )
        # A skipped step must not enter the average.
        if not any(estimate.unit_rates):
            return estimate
        return self._average.add(estimate, self.size.probes * self.size.repeats)

    def _measured(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> tuple[ProjectionSums, Tensor]:
        """Return this rank's sums of projections, and sums of squares of weights and updates."""
        with ExitStack() as stack:
            batches, step = self._begun(stack, uncounted_decays)
            stack.enter_context(being_measured(self._model))

            def unit_update(index: int) -> Tensor:
                used = learning_rates[index]
                return step.change(index).mul_(1 / used if used > 0 else 0.0)

            update = Update(
                unit_update, learning_rates, step.applied if self._options.linearity else None
            )
            self._estimator.probes = self.size.probes
            most, repeats = self.size.part(sum(batch.examples for batch in batches))
            sums = self._estimator.measure(batches, update, max_examples=most, repeats=repeats)
            self._examples = sums.examples
            return sums, step.sums_of_squares()

    def _begun(
        self, stack: ExitStack, uncounted_decays: Sequence[float]
    ) -> tuple[list[Batch], StepView]:
        """Return the batches and the step, with the weights from before the step in place.

        The ranks of a sharded model wait for each other in every pass. So either all of them start,
        on equally many batches of equally many examples, or none does.

        Args:
            stack: Puts the weights back when it closes.
            uncounted_decays: As in :meth:`end_step`.

        Raises:
            MeasurementError: This rank or a different one cannot start.
        """
        if not self._is_sharded:
            return self._batches(), stack.enter_context(self._step_undone(uncounted_decays))
        failure: Exception | None = None
        batches: list[Batch] = []
        try:
            batches = self._batches()
            step = stack.enter_context(self._step_undone(uncounted_decays))
        except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
            failure = error
        count = self._ranks.least(0 if failure else len(batches))
        if failure is not None:
            raise failure
        if count == 0:
            raise MeasurementError(
                "the model is sharded, and a rank has nothing to measure or could not start, so no "
                "rank measures; see the logs of the other ranks"
            )
        latest = batches[-count:]
        return [batch.select(0, self._ranks.least(batch.examples)) for batch in latest], step

    def _batches(self) -> list[Batch]:
        """Return the batches of the step's training calls, the latest last."""
        if self._failure is not None:
            raise self._failure
        if torch.is_inference_mode_enabled():
            raise MeasurementError(
                "the optimizer steps inside of torch.inference_mode(), where nothing has "
                "gradients, so the step cannot be measured; call step() outside of it"
            )
        all_calls = self._calls.latest()
        calls = [call for call in all_calls if not call.is_mapped]
        if all_calls and not calls:
            raise MeasurementError(
                "the model was called only inside of torch.func.vmap, whose inputs exist only "
                "there, so the step cannot be measured; in each step, also call the model on the "
                "whole batch outside of it"
            )
        if not calls:
            raise MeasurementError(
                "the model was not called with gradients enabled before the optimizer's step; "
                "attach the module that the training loop calls"
            )
        if calls[-1].is_changed and not self._has_warned_of_changes:
            self._has_warned_of_changes = True
            if self._listeners is not None:
                self._listeners.emit(Warned(0, _CHANGED_INPUTS))
        batch_of = self._options.batch_of
        return [
            replace(
                batch_of(self._model, call.args, call.kwargs, call.autocasts),
                is_written_to=call.is_changed,
            )
            for call in calls
        ]

    def _step_undone(self, uncounted_decays: Sequence[float]) -> AbstractContextManager[StepView]:
        if self._before is None:
            raise MeasurementError(
                "end_step was called without begin_step, so the weights before the step are unknown"
            )
        return self._before.restored(uncounted_decays)

    def rescale_step(self, factors: Sequence[float], decays: Sequence[float]) -> None:
        """Multiply the step's update by a factor for each group, except its weight decay.

        Args:
            factors: One for each group.
            decays: Which part of each group's weights from before the step it took away as weight
                decay that is not to be multiplied.

        Raises:
            MeasurementError: :meth:`begin_step` was not called for this step.
        """
        if self._before is None:
            raise MeasurementError(
                "rescale_step was called without begin_step, so the weights before the step are "
                "unknown"
            )
        self._before.rescale(factors, decays)

    def fail_step(self, error: Exception) -> None:
        """Let :meth:`end_step` raise an error, once the other ranks know about it.

        Args:
            error: The reason why the step cannot be measured.
        """
        self._failure = error

    def forget_step(self) -> None:
        """Release the weights and the batches that a measurement kept."""
        self._before = None
        self._calls.clear()
        self._failure = None

    def close(self) -> None:
        """Stop watching the model's calls."""
        self._calls.close()
        self.forget_step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: averages, and the state of the probes.

        How batches are to be measured is not part of it. It is found again after loading, by probes
        that no measurement uses.
        """
        return {
            "average": self._average.state_dict(),
            "probes": self._estimator.probe_states(),
            **self.size.state_dict(),
            "rank": self._ranks.rank,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        self._average.load_state_dict(state["average"])
        self.size.load_state_dict(state)
        if state["rank"] == self._ranks.rank:  # each rank draws its own probes
            self._estimator.load_probe_states(state["probes"])
