"""Records the unit rates of a training job as a profile; the training is not changed by a bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from google.protobuf.timestamp_pb2 import Timestamp
from torch import nn

from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.environment import code_revision, user_name
from fslr.errors import AttachError, MeasurementError
from fslr.torch.distributed import Group
from fslr.torch.estimators import RateEstimate
from fslr.torch.hooks import StepObserver
from fslr.torch.step_meter import MeasuringOptions
from fslr.training.correlations import alike_pairs, correlations


class Recorder(StepObserver):
    """Measures every ``every``-th step of a training job, from the first one on.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer; left as it is, schedulers may be attached.
        every: Steps between measurements, >= 1.
        options: How to measure.
        process_group: Who trains the model together: a process group; ``"alone"``; None: as the
            model's wrapper says. All ranks record the same.

    Attributes:
        estimate: The newest measurement, or None before the first.

    Raises:
        AttachError: The optimizer does not fit the model, ``every`` is below 1, or several
            processes train the model and nothing says how.
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int = 25,
        options: MeasuringOptions | None = None,
        process_group: Group = None,
    ) -> None:
        if every < 1:
            raise AttachError(f"every is {every}; measure every step (1) or more seldom")
        super().__init__(
            model,
            optimizer,
            options or MeasuringOptions(),
            strict=True,
            process_group=process_group,
        )
        self._every = every
        self._optimizer_name = type(optimizer).__name__
        self._largest_rate = 0.0
        self._points: list[profile_pb2.ProfilePoint] = []
        self._pairs = alike_pairs([group.name for group in self.groups])
        self.estimate: RateEstimate | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; what was recorded so far is part of it."""
        return {
            **super().state_dict(),
            "largest_rate": self._largest_rate,
            "points": [point.SerializeToString() for point in self._points],
        }

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self._largest_rate = float(state["largest_rate"])
        self._points = [profile_pb2.ProfilePoint.FromString(p) for p in state["points"]]

    def _take_news(self) -> None:
        self._largest_rate = max(self._largest_rate, *self._scaler.scheduled())

    def _factors(self) -> list[float]:
        return [1.0] * len(self.groups)

    def _take(self, estimate: RateEstimate, scheduled: list[float]) -> None:
        self.estimate = estimate
        self._next = self.step + self._every
        self._points.append(
            profile_pb2.ProfilePoint(
                step=self.step,
                unit_rates=estimate.unit_rates,
                relative_errors=estimate.relative_errors,
                learning_rate=max(scheduled),
                correlations=(
                    None if estimate.gram is None else correlations(estimate.gram, self._pairs)
                ),
            )
        )

    def profile(
        self,
        *,
        model: str,
        width: int = 0,
        depth: int = 0,
        dataset: str = "",
        batch_size: int = 0,
        loss: str = "",
        commit: str | None = None,
        author: str | None = None,
        base_learning_rate: float | None = None,
        labels: Mapping[str, str] | None = None,
        docs: str = "",
        policy: policy_pb2.Policy | None = None,
        role_templates: Sequence[str] = (),
    ) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            model: The base model in words.
            width: Its width. Registration requires it, and depth, dataset and batch size.
            depth: Its number of blocks.
            dataset: The data in words.
            batch_size: Examples a step.
            loss: The loss in words, such as ``cross-entropy``.
            commit: Revision of the training code. Default: that of the working directory's git
                repository; empty outside of one.
            author: Who recorded it. Default: this process's user.
            base_learning_rate: The learning rate to transfer, absolute. Default: the largest
                scheduled one.
            labels: Key-value pairs to filter lists by.
            docs: A written guideline, in Markdown.
            policy: The rules for runs on the profile.
            role_templates: How block indices are read off names, where they are not found by
                themselves: beginnings of names with ``*`` for each index.

        Raises:
            MeasurementError: No step was measured.
        """
        if not self._points:
            raise MeasurementError(
                "no step was measured, so there is no profile; train first, and look for a warning "
                "of the logger 'fslr'"
            )
        record_time = Timestamp()
        record_time.GetCurrentTime()
        layout = self.groups.layout()
        layout.role_templates.extend(role_templates)
        pairs = self._pairs
        points = [profile_pb2.ProfilePoint.FromString(p.SerializeToString()) for p in self._points]
        if any(len(point.correlations) != len(pairs) for point in points):
            pairs = []  # resumed with an estimator that knows no correlations
            for point in points:
                point.ClearField("correlations")
        return profile_pb2.ProfileContent(
            layout=layout,
            points=points,
            correlated_groups=[profile_pb2.GroupPair(first=i, second=j) for i, j in pairs],
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
                commit=code_revision() if commit is None else commit,
                author=user_name() if author is None else author,
                width=width,
                depth=depth,
                loss=loss,
                record_time=record_time,
            ),
            labels=labels or {},
            docs=docs,
        )
