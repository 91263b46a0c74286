"""Measures the unit rates of a training job's own steps, without the job noticing.

A :class:`StepMeter` is told when a step begins and ends. Where a measurement is due it keeps the
weights from before the step, and afterwards measures what the step's update does to the outputs of
the batch that the model saw last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.batch import Batch
from fslr.torch.estimators import PerExampleEstimator, RateEstimate
from fslr.torch.groups import ModelGroups
from fslr.torch.isolation import weights_swapped


def tensor_output(result: Any) -> Tensor:
    """Return a model's result where it is a tensor.

    Raises:
        MeasurementError: It is something else.
    """
    if isinstance(result, Tensor):
        return result
    raise MeasurementError(
        f"the model returns a {type(result).__name__}, not a tensor; say which tensor is the "
        "output, for example output=lambda result: result.logits"
    )


@dataclass(frozen=True, slots=True)
class MeasuringOptions:
    """How to measure.

    Attributes:
        output: Selects the output tensor, leading dimension the batch, from the model's result.
        probes: Number of probes K, >= 1; the relative error falls with ``1 / sqrt(K)``.
        examples: Most examples B to measure on, taken from the front of the training batch; None:
            all of them.
        seed: Seed of the probes.
    """

    output: Callable[[Any], Tensor] = tensor_output
    probes: int = 1
    examples: int | None = None
    seed: int = 0


class _CallWatcher:
    """A forward pre-hook that copies and pickles of the model do not take along."""

    def __init__(self, see: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]) -> None:
        self._see = see

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._see(model, args, kwargs)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _watch_nothing, ()  # deepcopy comes this way too


def _watch_nothing() -> Callable[..., None]:
    """Return what stands in a copy of a model where the watcher stood."""
    return _ignore_call


def _ignore_call(_model: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Let a call of a copied model pass."""


class StepMeter:
    """Measures optimizer steps of a model.

    Args:
        model: The model.
        groups: Its groups.
        options: How to measure.

    Raises:
        MeasurementError: A group's parameter belongs to a layer type that cannot be measured.
    """

    def __init__(self, model: nn.Module, groups: ModelGroups, options: MeasuringOptions) -> None:
        self._groups = groups
        self._examples = options.examples
        self._estimator = PerExampleEstimator(
            model, groups, output=options.output, probes=options.probes, seed=options.seed
        )
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._before: dict[nn.Parameter, Tensor] | None = None
        self._measuring = False
        self._handle = model.register_forward_pre_hook(
            _CallWatcher(self._see_call), with_kwargs=True
        )

    def _see_call(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember the latest training call; its tensors are referred to, not copied."""
        if model.training and torch.is_grad_enabled() and not self._measuring:
            self._call = args, kwargs  # looked at after the step: here nothing may be raised

    def begin_step(self) -> None:
        """Keep the weights, for the step that follows is to be measured."""
        self._before = {group.parameter: group.parameter.detach().clone() for group in self._groups}

    def end_step(self, learning_rates: Sequence[float]) -> RateEstimate:
        """Measure the step that began with :meth:`begin_step`.

        Args:
            learning_rates: Absolute learning rate of each group in the step, multiplier included;
                a group with 0 did not move and has the unit rate 0.

        Raises:
            MeasurementError: The model was not called for training since the last step, or cannot
                be measured.
        """
        if self._before is None:
            raise MeasurementError("end_step without begin_step: the weights before are not known")
        if self._call is None:
            raise MeasurementError(
                "the model was not called in training mode before the optimizer's step; attach the "
                "module that the training loop calls"
            )
        batch, before = Batch.of_call(*self._call), self._before
        if self._examples is not None and self._examples < batch.examples:
            batch = batch.select(0, self._examples)
        after = {id(parameter): parameter.data for parameter in before}
        start = {id(parameter): tensor for parameter, tensor in before.items()}
        rate_of = {
            id(group.parameter): rate
            for group, rate in zip(self._groups, learning_rates, strict=True)
        }

        def unit_update(parameter: Tensor) -> Tensor:
            rate = rate_of[id(parameter)]
            change = after[id(parameter)] - start[id(parameter)]
            return change / rate if rate > 0 else torch.zeros_like(change)

        self._measuring = True
        try:
            with weights_swapped(before):
                return self._estimator.estimate(batch, unit_update)
        finally:
            self._measuring = False

    def rescale_step(self, factors: Sequence[float]) -> None:
        """Turn the step's update into ``factor`` times itself, group by group.

        Args:
            factors: One for each group.

        Raises:
            MeasurementError: No step was begun with :meth:`begin_step`.
        """
        if self._before is None:
            raise MeasurementError(
                "rescale_step without begin_step: the weights before are not known"
            )
        with torch.no_grad():
            for group, factor in zip(self._groups, factors, strict=True):
                if factor != 1.0:
                    before = self._before[group.parameter]
                    group.parameter.copy_(torch.lerp(before, group.parameter, factor))

    def forget_step(self) -> None:
        """Let go of the weights and the batch that a measurement kept."""
        self._before = None
        self._call = None

    def close(self) -> None:
        """Stop looking at the model's calls."""
        self._handle.remove()
        self.forget_step()
