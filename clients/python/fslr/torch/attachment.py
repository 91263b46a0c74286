"""Attaches a training job to an advisor: measures, asks, and scales the learning rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from fslr.client.advisor_client import AdvisorClient
from fslr.errors import ServiceError
from fslr.protocols import Advisor
from fslr.resource_names import DEFAULT_PROJECT, profile_name, run_name
from fslr.torch.distributed import Group
from fslr.torch.estimators import RateEstimate
from fslr.torch.hooks import ADVISING, SCALING, Scaling, StepObserver
from fslr.torch.step_meter import MeasuringOptions
from fslr.torch.step_scaler import refuse_unscalable
from fslr.training.exchange import Advice, Exchange

_log = logging.getLogger("fslr")
_FIRST_INTERVAL_STEPS = 25  # after a first measurement that nobody answered


class Attachment(StepObserver):
    """A training job with advice. Made by :func:`attach`.

    Attributes:
        groups: The model's groups, in layout order.
        multipliers: The factors in force on the scheduled learning rates, in layout order.
        answer: The advisor's newest answer, or None before the first; on the rank that talks.
        estimate: The newest measurement, or None before the first.
        step: Number of optimizer steps so far.
        failures: Number of steps that were not measured though they were due, or not scaled.
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
        process_group: Group = None,
        scaling: Scaling = "learning_rates",
    ) -> None:
        super().__init__(
            model,
            optimizer,
            options,
            strict=strict,
            process_group=process_group,
            scaling=scaling,
        )
        self.multipliers = [1.0] * len(self.groups)
        self.answer: pb.RecommendLRResponse | None = None
        self.estimate: RateEstimate | None = None
        self._measured_at: int | None = None
        self._advised = [False] * len(self.groups)
        self._loss: float | None = None
        self._told: set[str] = set()
        self._on_close = on_close
        try:
            opening.layout.CopyFrom(self.groups.layout())
            opening.optimizer = opening.optimizer or type(optimizer).__name__
            opening.base_learning_rate = _base_learning_rate(optimizer)
            self._observe_only = opening.observe_only
            if not self._observe_only:
                refuse_unscalable(optimizer)
            self._exchange = Exchange(advisor, opening, self._ranks)
            self._check()
        except BaseException:
            super().close()
            raise

    def report_loss(self, loss: float) -> None:
        """Send a training loss along with the next measurement, for ``advisor run show``.

        Args:
            loss: The loss, in your own unit; it goes with one measurement, and only if it is
                finite. The newest counts, so it may be reported at every step.
        """
        self._loss = float(loss) if math.isfinite(loss) else None

    @property
    def unanswered(self) -> int:
        """Number of measurements without an answer, or with one that cannot be applied."""
        return self._exchange.unanswered

    def close(self) -> None:
        """Let go of the model, the optimizer and the advisor."""
        super().close()
        self._exchange.close()
        self._on_close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; the multipliers in force are part of it.

        An answer that is under way is not: the next one comes with the next measurement.
        """
        return {
            **super().state_dict(),
            "multipliers": list(self.multipliers),
            "measured_at": self._measured_at,
            "advised": list(self._advised),
        }

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self.multipliers = [float(multiplier) for multiplier in state["multipliers"]]
        self._measured_at = state["measured_at"]
        self._advised = [bool(advised) for advised in state["advised"]]

    def _check(self) -> None:
        """Ask whether the layout maps, before the first step.

        Raises:
            LayoutMismatchError: It does not, and the start is strict.
            ServiceError: Nobody answers, or the profile is not there, and the start is strict.
        """
        try:
            self._exchange.check()
        except ServiceError as error:
            if self._strict:
                raise
            _log.warning("training begins without advice: %s", error)

    def _take_news(self) -> None:
        advice = self._exchange.news()
        if advice is not None:
            self._adopt(advice)

    def _factors(self) -> list[float]:
        return [1.0] * len(self.groups) if self._observe_only else self.multipliers

    def _take(self, estimate: RateEstimate, scheduled: list[float]) -> None:
        self.estimate = estimate
        since = None if self._measured_at is None else self.step - self._measured_at
        measurement = pb.Measurement(
            step=self.step,
            unit_rates=estimate.unit_rates,
            relative_errors=estimate.relative_errors,
            multipliers=self._factors(),
            learning_rates=scheduled,
            interval_steps=since or 0,
            probes=estimate.probes,
            examples=estimate.examples,
            loss=self._loss,
            total_rate=estimate.total_rate,
            shares=estimate.shares,
            linearity_error=estimate.linearity_error,
            advised=self._advised,
        )
        self._loss = None  # it is that of this step alone
        self._measured_at = self.step
        # Until an answer says otherwise.
        self._next = self.step + (since or _FIRST_INTERVAL_STEPS)
        if self._started:
            self._exchange.submit(measurement)
            return
        # The first step is taken with the first answer: asked at once, and the step rescaled.
        before = self.multipliers
        self._doing = ADVISING
        self._adopt(self._exchange.ask(measurement))
        if not self._observe_only:
            self._doing = SCALING
            self._meter.rescale_step([
                new / old for new, old in zip(self.multipliers, before, strict=True)
            ])

    def _adopt(self, advice: Advice) -> None:
        self.answer = advice.answer
        self.multipliers = advice.multipliers
        if advice.probes > 0:
            self._meter.take_probes(advice.probes)
        if advice.answer is not None and not self._observe_only:
            self._advised = [
                before or now
                for before, now in zip(self._advised, advice.answer.recommended, strict=False)
            ]
        self._tell(advice.answer)
        self._next = max(advice.next_measurement_step, self.step)

    def _tell(self, answer: pb.RecommendLRResponse | None) -> None:
        """Log each of the answer's warnings once."""
        for warning in () if answer is None else answer.warnings:
            if warning.message not in self._told:
                self._told.add(warning.message)
                _log.warning("%s", warning.message)


def _base_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the largest learning rate that schedules are built on."""
    return max(_announced_rate(group) for group in optimizer.param_groups)


def _announced_rate(group: dict[str, Any]) -> float:
    """Return the learning rate that a group's schedule is built on; its own, if it has none."""
    first = float(group.get("initial_lr", group["lr"]))
    # OneCycleLR begins far below the rate that it is built on.
    largest: Any = group.get("max_lr") if "initial_lr" in group else None
    if isinstance(largest, Tensor) and largest.numel() == 1:
        largest = largest.item()
    if isinstance(largest, bool) or not isinstance(largest, (int, float)):
        return first
    return max(first, float(largest)) if math.isfinite(largest) else first


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
    batch_size: int = 0,
    loss: str = "",
    policy: policy_pb2.Policy | None = None,
    options: MeasuringOptions | None = None,
    strict: bool = True,
    scaling: Scaling = "learning_rates",
    process_group: Group = None,
) -> Attachment:
    """Let an advisor set the learning-rate multipliers of a training job.

    From now on the optimizer's steps are measured where the advisor wants them measured, and each
    tensor steps with ``scheduled learning rate * multiplier``. The very first step is taken with
    the first answer; later answers come in the background, and no step waits for them. The training
    loop needs no change: outside of a step the optimizer is as it was, for schedulers and for
    checkpoints.

    Where several ranks train the model, all of them call this; each measures its own examples, the
    first rank talks to the advisor, and all act on its answer in the same step.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer.
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
        advisor: ``host:port`` of the service, or an advisor in this process.
        run: Name under which the run is stored; empty: it is not stored.
        project: Project of profile and run.
        total_steps: Planned optimizer steps; needed by policies that align by progress.
        observe_only: Measure and report alone; the training is not changed by a bit.
        batch_size: Examples a step, to be warned where the profile's is another; 0: unknown.
        loss: The loss in words, such as ``cross-entropy``, for the same; empty: unknown.
        policy: Rules instead of the profile's own.
        options: How to measure.
        strict: Whether trouble before and at the first measured step is raised. If not, it is
            logged and the multipliers stay 1 until an answer comes. Later trouble never is raised.
        scaling: ``"learning_rates"``: the optimizer's groups are split for the time of a step.
            ``"update"``: the update is scaled after the step, for optimizers that are slow with
            many groups or that want to know nothing of learning rates; costs a copy of the weights.
        process_group: Who trains the model together: a process group; ``"alone"``; None: as the
            model's wrapper (DistributedDataParallel, FSDP2) says.

    Returns:
        The attachment; close it, or use it as a context manager, when training ends.

    Raises:
        AttachError: The optimizer does not fit the model, or several processes train the model and
            nothing says how.
        MeasurementError: An option is out of its range.
        ServiceError: No advisor answers, the profile is not there, or the layout does not map.
    """
    opening = pb.RunOpening(
        profile=profile_name(profile, project),
        run=run_name(run, project) if run else "",
        total_steps=total_steps,
        policy=policy,
        observe_only=observe_only,
        batch_size=batch_size,
        loss=loss,
    )
    options = options or MeasuringOptions()

    def attached(to: Advisor, on_close: Callable[[], None]) -> Attachment:
        return Attachment(
            model,
            optimizer,
            to,
            opening,
            options=options,
            strict=strict,
            on_close=on_close,
            process_group=process_group,
            scaling=scaling,
        )

    if not isinstance(advisor, str):
        return attached(advisor, _nothing)
    client = AdvisorClient(advisor)  # ours to close
    try:
        return attached(client, client.close)
    except BaseException:
        client.close()
        raise


def _nothing() -> None:
    """Leave the caller's advisor open."""
