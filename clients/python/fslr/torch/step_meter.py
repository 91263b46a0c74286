"""Measures the unit rates of a training job's own steps, without changing the training.

If a step is measured, a :class:`StepMeter` keeps the weights from before the step. After the step
it measures what the update does to the outputs of the batch that the model saw last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.distributed import Ranks, is_sharded
from fslr.torch.estimators import ProjectionSums, RateEstimate
from fslr.torch.measured_modules import being_measured, is_being_measured
from fslr.torch.measuring_options import MeasuringOptions
from fslr.torch.model.batch import AutocastState, Batch
from fslr.torch.model.forward import unwrap
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.mask import mask_label
from fslr.torch.model.snapshot import Snapshot, StepView
from fslr.torch.model.update import Update
from fslr.training.averaging import RunningAverage

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
    rates = torch.tensor(learning_rates, dtype=torch.float64, device="cpu")
    updates = torch.where(rates > 0, changes / rates, 0.0)
    if not bool(((weights <= _MAX_RMS) & (updates <= _MAX_RMS)).all()):
        return estimate
    return replace(estimate, weight_rms=weights.tolist(), update_rms=updates.tolist())


_Call = tuple[tuple[Any, ...], dict[str, Any], tuple[AutocastState, ...]]


class _CallWatcher:
    """A forward pre-hook that copies and pickles of the model do not contain."""

    def __init__(self, see: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]) -> None:
        self._see = see

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._see(model, args, kwargs)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _watch_nothing, ()  # deepcopy comes this way too


def _watch_nothing() -> Callable[..., None]:
    """Return what a copy of a model has in place of the watcher."""
    return _ignore_call


def _ignore_call(_model: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Let a call of a copied model pass."""


def _do_nothing() -> None:
    """Take no note of a call."""


class StepMeter:
    """Measures optimizer steps of a model, together with the other ranks that train it.

    Args:
        model: The model that the training loop calls.
        groups: Its groups.
        options: How to measure.
        ranks: The processes that train the model.

    Attributes:
        on_call: Called before each training call of the model; it must not raise.

    Raises:
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        options: MeasuringOptions,
        ranks: Ranks | None = None,
    ) -> None:
        self.on_call: Callable[[], None] = _do_nothing
        self._model = model
        self._groups = groups
        self._options = options
        self._ranks = ranks or Ranks()
        self._is_sharded = is_sharded(model)
        self._estimator = options.estimator_of(model, groups, self._ranks)
        self._probes_per_requested = 1.0  # a slow route uses several for each requested one
        self._average = RunningAverage(options.averaging)
        self._device_types = sorted({group.parameter.device.type for group in groups} | {"cpu"})
        self._call: _Call | None = None
        self._before: Snapshot | None = None
        self._failure: Exception | None = None
        # A measurement calls the module inside of wrappers and so runs its pre-hooks again. So the
        # call is noted before the other pre-hooks of that module.
        self._handle = model.register_forward_pre_hook(
            _CallWatcher(self._see_call), with_kwargs=True, prepend=model is unwrap(model)
        )

    def _see_call(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a reference to the latest training call; its tensors are not copied."""
        if not torch.is_grad_enabled() or is_being_measured(model):
            return
        self.on_call()
        # A model may be trained in eval mode, but a validation must not hide the training batch.
        if model.training or self._call is None:
            # Checked after the step: nothing may be raised here.
            autocasts = tuple(AutocastState.current(kind) for kind in self._device_types)
            self._call = args, kwargs, autocasts

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured by the slow route, with the reason."""
        slow: dict[str, str] = getattr(self._estimator, "slow_groups", {})
        return slow

    @property
    def excludes_decay(self) -> bool:
        """Whether the update is measured without its weight decay."""
        return self._options.exclude_weight_decay

    def set_probes(self, probes: int) -> None:
        """Set the number of probes of later measurements, as in :attr:`RateEstimate.probes`.

        Args:
            probes: The number, >= 1.
        """
        self._estimator.probes = max(1, math.ceil(probes / self._probes_per_requested))

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
        if squares is not None:  # it is on no rank, or no rank gets here
            estimate = _with_rms(estimate, self._ranks.total(squares), learning_rates)
        estimate = replace(
            estimate,
            excludes_weight_decay=self.excludes_decay,
            mask=mask_label(self._options.mask),
        )
        self._probes_per_requested = estimate.probes / self._estimator.probes
        # A skipped step must not enter the average.
        if not any(estimate.unit_rates):
            return estimate
        return self._average.add(estimate, self._estimator.probes)

    def _measured(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> tuple[ProjectionSums, Tensor]:
        """Return this rank's sums of projections, and sums of squares of weights and updates."""
        with ExitStack() as stack:
            batch, step = self._begun(stack, uncounted_decays)
            stack.enter_context(being_measured(self._model))

            def unit_update(index: int) -> Tensor:
                rate = learning_rates[index]
                return step.change(index).mul_(1 / rate if rate > 0 else 0.0)

            update = Update(
                unit_update, learning_rates, step.applied if self._options.linearity else None
            )
            return self._estimator.measure(batch, update), step.sums_of_squares()

    def _begun(self, stack: ExitStack, uncounted_decays: Sequence[float]) -> tuple[Batch, StepView]:
        """Return the batch and the step, with the weights from before the step in place.

        The ranks of a sharded model wait for each other in every pass. So either all of them start,
        on the same number of examples, or none does.

        Args:
            stack: Puts the weights back when it closes.
            uncounted_decays: As in :meth:`end_step`.

        Raises:
            MeasurementError: This rank or a different one cannot start.
        """
        if not self._is_sharded:
            return self._batch(), stack.enter_context(self._step_undone(uncounted_decays))
        failure: Exception | None = None
        examples = 0
        try:
            batch = self._batch()
            step = stack.enter_context(self._step_undone(uncounted_decays))
            examples = batch.examples
        except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
            failure = error
        least = self._ranks.least(examples)
        if failure is not None:
            raise failure
        if least == 0:
            raise MeasurementError(
                "the model is sharded, and a rank has nothing to measure or could not start, so no "
                "rank measures; see the logs of the other ranks"
            )
        return batch.select(0, least), step

    def _batch(self) -> Batch:
        if self._failure is not None:
            raise self._failure
        if self._call is None:
            raise MeasurementError(
                "the model was not called with gradients enabled before the optimizer's step; "
                "attach the module that the training loop calls"
            )
        batch, examples = Batch.from_call(*self._call), self._options.examples
        if examples is not None and examples < batch.examples:
            return batch.select(0, examples)
        return batch

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
        """Release the weights and the batch that a measurement kept."""
        self._before = None
        self._call = None
        self._failure = None

    def close(self) -> None:
        """Stop watching the model's calls."""
        self._handle.remove()
        self.forget_step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: averages, and the state of the probes."""
        return {
            "average": self._average.state_dict(),
            "probes": self._estimator.probe_states(),
            "probe_count": self._estimator.probes,
            "probes_per_requested": self._probes_per_requested,
            "rank": self._ranks.rank,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        self._average.load_state_dict(state["average"])
        self._estimator.probes = int(state["probe_count"])
        self._probes_per_requested = float(state["probes_per_requested"])
        if state["rank"] == self._ranks.rank:  # each rank draws its own probes
            self._estimator.load_probe_states(state["probes"])
