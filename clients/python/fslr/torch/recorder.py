"""Records the unit rates of a training job as a profile; the training is not changed by a bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.errors import AttachError, MeasurementError
from fslr.torch.estimators import RateEstimate
from fslr.torch.measuring import MeasuringOptions
from fslr.torch.observing import StepObserver


class Recorder(StepObserver):
    """Measures every ``every``-th step of a training job, from the first one on.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer; left as it is, schedulers may be attached.
        every: Steps between measurements, >= 1.
        options: How to measure.

    Raises:
        AttachError: The optimizer does not fit the model, or ``every`` is below 1.
        MeasurementError: A layer type cannot be measured.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int = 25,
        options: MeasuringOptions | None = None,
    ) -> None:
        if every < 1:
            raise AttachError(f"every is {every}; measure every step (1) or more seldom")
        super().__init__(model, optimizer, options or MeasuringOptions(), strict=True)
        self._every = every
        self._optimizer_name = type(optimizer).__name__
        self._next = 0
        self._largest_rate = 0.0
        self._points: list[profile_pb2.ProfilePoint] = []

    def _is_due(self) -> bool:
        return self.step >= self._next

    def _take_news(self) -> None:
        self._largest_rate = max(self._largest_rate, *self._scaler.scheduled())

    def _scale(self) -> None:
        """Leave the learning rates as they are scheduled."""

    def _in_force(self) -> list[float]:
        return [1.0] * len(self.groups)

    def _take(self, estimate: RateEstimate, scheduled: list[float]) -> None:  # noqa: ARG002
        self._next = self.step + self._every
        self._points.append(
            profile_pb2.ProfilePoint(
                step=self.step,
                unit_rates=estimate.unit_rates,
                relative_errors=estimate.relative_errors,
            )
        )

    def profile(
        self,
        *,
        model: str,
        dataset: str = "",
        batch_size: int = 0,
        commit: str = "",
        author: str = "",
        base_learning_rate: float | None = None,
        labels: Mapping[str, str] | None = None,
        docs: str = "",
        policy: policy_pb2.Policy | None = None,
    ) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            model: The base model in words.
            dataset: The data in words.
            batch_size: Examples a step.
            commit: Revision of the training code.
            author: Who recorded it.
            base_learning_rate: The learning rate to transfer, absolute. Default: the largest
                scheduled one.
            labels: Key-value pairs to filter lists by.
            docs: A written guideline, in Markdown.
            policy: The rules for runs on the profile.

        Raises:
            MeasurementError: No step was measured.
        """
        if not self._points:
            raise MeasurementError(
                "no step was measured, so there is no profile; train first, and look for a warning "
                "of the logger 'fslr'"
            )
        return profile_pb2.ProfileContent(
            layout=self.groups.layout(),
            points=self._points,
            base_learning_rate=(
                self._largest_rate if base_learning_rate is None else base_learning_rate
            ),
            total_steps=self.step,
            policy=policy,
            provenance=profile_pb2.Provenance(
                model=model,
                optimizer=self._optimizer_name,
                batch_size=batch_size,
                dataset=dataset,
                commit=commit,
                author=author,
            ),
            labels=labels or {},
            docs=docs,
        )
