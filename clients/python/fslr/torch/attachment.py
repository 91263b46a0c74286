"""Attaches a training job to an advisor: measures, asks, and scales the learning rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import nn

from fslr.advising import Advisor
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from fslr.background import BackgroundSession
from fslr.client import AdvisorClient
from fslr.errors import LayoutMismatchError, ServiceError
from fslr.names import DEFAULT_PROJECT, profile_name, run_name
from fslr.torch.estimators import RateEstimate
from fslr.torch.measuring import MeasuringOptions
from fslr.torch.observing import StepObserver
from fslr.torch.optimizer import refuse_unscalable

_log = logging.getLogger("fslr")
_FIRST_INTERVAL_STEPS = 25  # after a first measurement that nobody answered


class Attachment(StepObserver):
    """A training job with advice. Made by :func:`attach`.

    Attributes:
        groups: The model's groups, in layout order.
        multipliers: The factors in force on the scheduled learning rates, in layout order.
        answer: The advisor's newest answer, or None before the first.
        step: Number of optimizer steps so far.
        failures: Number of steps that were due and not measured.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        advisor: Advisor,
        opening: pb.RunOpening,
        *,
        options: MeasuringOptions,
        strict: bool,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(model, optimizer, options, strict=strict)
        try:
            opening.layout.CopyFrom(self.groups.layout())
            opening.optimizer = opening.optimizer or type(optimizer).__name__
            self._observe_only = opening.observe_only
            self._check(advisor, opening)
            if not self._observe_only:
                refuse_unscalable(optimizer)
            self._session = advisor.open_run(opening)
        except BaseException:
            super().close()
            raise
        self._background = BackgroundSession(self._session)
        self._on_close = on_close
        self.multipliers = [1.0] * len(self.groups)
        self.answer: pb.RecommendLRResponse | None = None
        self._next = 0
        self._measured_at: int | None = None
        self._loss: float | None = None

    def report_loss(self, loss: float) -> None:
        """Send a training loss along with the next measurement, for the run's page."""
        self._loss = loss

    @property
    def unanswered(self) -> int:
        """Number of measurements that the advisor did not answer."""
        return self._background.failed + self._background.replaced

    def close(self) -> None:
        """Let go of the model, the optimizer and the advisor."""
        super().close()
        self._background.close()
        self._on_close()

    def _check(self, advisor: Advisor, opening: pb.RunOpening) -> None:
        """Ask whether the layout maps, before the first step.

        Raises:
            LayoutMismatchError: It does not, and the start is strict.
            ServiceError: Nobody answers, or the profile is not there, and the start is strict.
        """
        try:
            mapped = advisor.validate_layout(opening)
            if mapped.refusal:
                raise LayoutMismatchError(mapped.refusal, metadata={"profile": mapped.profile})
        except ServiceError as error:
            if self._strict:
                raise
            _log.warning("training begins without advice: %s", error)

    def _is_due(self) -> bool:
        return self.step >= self._next

    def _take_news(self) -> None:
        answer = self._background.take_answer()
        if answer is not None:
            self._adopt(answer)

    def _scale(self) -> None:
        if not self._observe_only:
            self._scaler.scale(self.multipliers)

    def _in_force(self) -> list[float]:
        return [1.0] * len(self.groups) if self._observe_only else self.multipliers

    def _take(self, estimate: RateEstimate, scheduled: list[float]) -> None:
        measurement = pb.Measurement(
            step=self.step,
            unit_rates=estimate.unit_rates,
            relative_errors=estimate.relative_errors,
            multipliers=self._in_force(),
            learning_rates=scheduled,
            interval_steps=0 if self._measured_at is None else self.step - self._measured_at,
            probes=estimate.probes,
            examples=estimate.examples,
            loss=self._loss,
        )
        interval = _FIRST_INTERVAL_STEPS
        if self._measured_at is not None:
            interval = self.step - self._measured_at
        self._measured_at = self.step
        self._next = self.step + interval  # until an answer says otherwise
        if self._started:
            self._background.submit(measurement)
        else:
            # The first step is taken with the first answer: asked at once, and the step rescaled.
            self._begin(measurement)

    def _begin(self, measurement: pb.Measurement) -> None:
        answer = self._session.recommend(measurement)
        before = self.multipliers
        self._adopt(answer)
        if not self._observe_only:
            self._meter.rescale_step([
                new / old for new, old in zip(self.multipliers, before, strict=True)
            ])

    def _adopt(self, answer: pb.RecommendLRResponse) -> None:
        usable = len(answer.multipliers) == len(self.groups) and all(
            math.isfinite(multiplier) and multiplier > 0 for multiplier in answer.multipliers
        )
        if not usable:
            raise ServiceError(
                f"the advisor answered step {answer.step} with multipliers that cannot be applied; "
                "those in force stay"
            )
        self.answer = answer
        self.multipliers = list(answer.multipliers)
        self._next = max(answer.next_measurement_step, self.step)


def attach(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    profile: str,
    advisor: str | Advisor = "127.0.0.1:50051",
    run: str = "",
    project: str = DEFAULT_PROJECT,
    total_steps: int = 0,
    observe_only: bool = False,
    policy: policy_pb2.Policy | None = None,
    options: MeasuringOptions | None = None,
    strict: bool = True,
) -> Attachment:
    """Let an advisor set the learning-rate multipliers of a training job.

    From now on the optimizer's steps are measured where the advisor wants them measured, and each
    tensor steps with ``scheduled learning rate * multiplier``. The very first step is taken with
    the first answer; later answers come in the background, and no step waits for them. The training
    loop needs no change; build learning-rate schedulers after this call.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer; its param groups are split into one a tensor (not if
            ``observe_only``).
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
        advisor: ``host:port`` of the service, or an advisor in this process.
        run: Name under which the run is stored; empty: it is not stored.
        project: Project of profile and run.
        total_steps: Planned optimizer steps; needed by policies that align by progress.
        observe_only: Measure and report alone; the training is not changed by a bit.
        policy: Rules instead of the profile's own.
        options: How to measure.
        strict: Whether trouble before and at the first measured step is raised. If not, it is
            logged and the multipliers stay 1 until an answer comes. Later trouble never is raised.

    Returns:
        The attachment; close it, or use it as a context manager, when training ends.

    Raises:
        AttachError: The optimizer does not fit the model, or a scheduler is attached already.
        MeasurementError: A layer type cannot be measured.
        ServiceError: No advisor answers, the profile is not there, or the layout does not map.
    """
    opening = pb.RunOpening(
        profile=profile_name(profile, project),
        run=run_name(run, project) if run else "",
        total_steps=total_steps,
        policy=policy,
        observe_only=observe_only,
    )
    options = options or MeasuringOptions()
    if not isinstance(advisor, str):
        return Attachment(
            model, optimizer, advisor, opening, options=options, strict=strict, on_close=_nothing
        )
    client = AdvisorClient(advisor)  # ours to close
    try:
        return Attachment(
            model, optimizer, client, opening, options=options, strict=strict, on_close=client.close
        )
    except BaseException:
        client.close()
        raise


def _nothing() -> None:
    """Leave the caller's advisor open."""
