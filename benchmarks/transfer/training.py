"""One training of a transfer case in a worker process: plain, recorded, or advised.

A training is data that is sent to a worker process. The same data gives the same losses, whichever
worker runs it and whatever the worker ran before.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

import torch
from torch import nn

import fslr.torch
from benchmarks.training import loss_of
from benchmarks.transfer.models import build_task, residual_outputs
from benchmarks.transfer.optimizers import OptimizerName, build_optimizer
from benchmarks.transfer.parametrization import Parametrization, Standard
from benchmarks.transfer.settings import Setting
from fslr import Provenance, RunInfo
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, profile_service_pb2
from fslr.protocols import RunSession

LAST_PART = 0.2  # part of a training's steps whose mean loss is the loss of the training


Totals = tuple[tuple[int, float], ...]
"""Steps, with the total rate per learning rate at each."""

Adjust = Callable[
    [advisor_service_pb2.RecommendLRResponse, fslr.torch.RateEstimate, Totals],
    advisor_service_pb2.RecommendLRResponse,
]
"""Maps an answer, its measurement and the base's total rates to the answer to use."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How to record a profile.

    Attributes:
        every: Steps between measurements.
        options: How to measure.
    """

    every: int = 25
    options: fslr.torch.MeasuringOptions = field(default_factory=fslr.torch.MeasuringOptions)


@dataclass(frozen=True, slots=True)
class Advice:
    """How to advise a training.

    Attributes:
        policy: Policy to use instead of the profile's, which is the default policy.
        options: How to measure.
        recipe: Name of the shipped recipe that scales the initial weights, and whose factors hold
            until the first measurement; empty for none.
        adjust: Changes answers before they are used, for ideas that the service does not implement;
            None to use them unchanged.
    """

    policy: policy_pb2.Policy | None = None
    options: fslr.torch.MeasuringOptions = field(default_factory=fslr.torch.MeasuringOptions)
    recipe: str = ""
    adjust: Adjust | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """A training to run.

    Attributes:
        setting: The model.
        base: The setting where the learning rate was tuned; used by parametrizations.
        optimizer: The optimizer.
        learning_rate: The constant learning rate.
        steps: Optimizer steps.
        seed: Seed of the initial weights and of the batches.
        weight_decay: Coefficient of AdamW's weight decay; None for PyTorch's default.
        parametrization: How to prepare the model.
        recording: How to record a profile; None to record none.
        advice: How to advise the training, which needs ``profile`` and ``address``; None for a
            plain training.
        profile: Name of the profile to use.
        address: ``host:port`` of the service.
        totals: Total rates of the base's training, for ``advice.adjust``.
    """

    setting: Setting
    base: Setting
    optimizer: OptimizerName
    learning_rate: float
    steps: int
    seed: int
    weight_decay: float | None = None
    parametrization: Parametrization = field(default_factory=Standard)
    recording: Recording | None = None
    advice: Advice | None = None
    profile: str = ""
    address: str = ""
    totals: Totals = ()


@dataclass(slots=True)
class Trained:
    """The result of a training.

    Attributes:
        loss: Mean training loss of the last fifth of the steps, nats; infinite if it diverged.
        seconds: Wall time of the training loop.
        losses: Training loss of each step, nats.
        unevenness: Mean processor time of a step, relative to the median: 1 if all steps take
            equally long. Measured steps raise it; other load on the machine hardly does.
        content: The recorded profile, serialized; empty if there is none or the training diverged.
        totals: The total rates recorded with the profile.
        unanswered: Measurements that failed or were not answered.
        multipliers: The last multiplier of each group, by name; empty without advice.
    """

    loss: float
    seconds: float
    losses: list[float]
    unevenness: float = math.nan
    content: bytes = b""
    totals: Totals = ()
    unanswered: int = 0
    multipliers: dict[str, float] = field(default_factory=dict)


def final_loss(losses: list[float], steps: int) -> float:
    """Return the loss of a training: the mean over the last fifth of its steps.

    Trainings with one seed see the same batches, so the noise of the batches cancels in a
    comparison. A mean over steps is also less noisy than a validation of the last weights, which
    keep moving at a constant learning rate. A training that stopped early diverged.

    Args:
        losses: Loss of each step that was taken.
        steps: Number of planned steps.
    """
    if len(losses) < steps or not math.isfinite(losses[-1]):
        return math.inf
    last = losses[-max(1, round(LAST_PART * steps)) :]
    return sum(last) / len(last)


_Answer = Callable[
    [advisor_service_pb2.RecommendLRResponse], advisor_service_pb2.RecommendLRResponse
]


class AdjustingAdvisor:
    """Forwards calls to an advisor, and changes each answer.

    Args:
        client: The client of the service.
        adjust: Changes an answer.
    """

    def __init__(self, client: fslr.AdvisorClient, adjust: _Answer) -> None:
        self._client = client
        self._adjust = adjust

    def validate_layout(
        self, opening: advisor_service_pb2.RunOpening
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Ask the advisor whether a layout maps.

        Args:
            opening: The run.
        """
        return self._client.validate_layout(opening)

    def open_run(self, opening: advisor_service_pb2.RunOpening) -> RunSession:
        """Open a run at the advisor.

        Args:
            opening: The run.
        """
        return _AdjustingSession(self._client.open_run(opening), self._adjust)


class _AdjustingSession:
    """A session of a run that changes each answer."""

    def __init__(self, session: RunSession, adjust: _Answer) -> None:
        self._session = session
        self._adjust = adjust

    def recommend(
        self, measurement: advisor_service_pb2.Measurement
    ) -> advisor_service_pb2.RecommendLRResponse:
        return self._adjust(self._session.recommend(measurement))

    def close(self) -> None:
        self._session.close()


def start_worker() -> None:
    """Prepare a worker process: one thread, and no warnings about intended differences of cases."""
    torch.set_num_threads(1)  # as THREADS of the bench
    logging.getLogger("fslr").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended, since a killed parent cannot stop it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_training(training: Training) -> Trained:
    """Run a training.

    Args:
        training: The training.
    """
    torch.manual_seed(training.seed)
    task = build_task(training.setting)
    model = task.model
    factors = training.parametrization.prepare(model, training.setting, training.base)
    optimizer = build_optimizer(
        training.optimizer, model, training.learning_rate, factors, training.weight_decay
    )
    batches = torch.Generator().manual_seed(training.seed + 1)
    losses: list[float] = []
    trained = Trained(math.inf, 0.0, losses)
    begun = time.perf_counter()
    times_s: list[float] = []
    with _attached(training, model, optimizer, trained) as after_step:
        for _ in range(training.steps):
            step_begun = time.process_time()
            loss = loss_of(model, *task.draw(batches))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            times_s.append(time.process_time() - step_begun)
            after_step()
    trained.seconds = time.perf_counter() - begun
    if times_s:
        trained.unevenness = statistics.fmean(times_s) / statistics.median(times_s)
    trained.loss = final_loss(losses, training.steps)
    if not math.isfinite(trained.loss):
        trained.content = b""
    return trained


@contextmanager
def _attached(
    training: Training, model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained
) -> Iterator[Callable[[], None]]:
    """Attach a client or a recorder; yields a function to call after each step."""
    if training.advice is not None:
        with fslr.AdvisorClient(training.address) as client:
            adjust = training.advice.adjust

            def adjusted(
                answer: advisor_service_pb2.RecommendLRResponse,
            ) -> advisor_service_pb2.RecommendLRResponse:
                if adjust is None or attachment.estimate is None:
                    return answer
                return adjust(answer, attachment.estimate, training.totals)

            with fslr.torch.attach(
                model,
                optimizer,
                profile=training.profile,
                advisor=client if adjust is None else AdjustingAdvisor(client, adjusted),
                total_steps=training.steps,
                run=RunInfo(policy=training.advice.policy),
                options=training.advice.options,
                recipe=training.advice.recipe,
                initialize=bool(training.advice.recipe),
                residual_outputs=residual_outputs(model),
                answers="wait",
            ) as attachment:
                yield _do_nothing
            trained.unanswered = attachment.unanswered + attachment.failures
            names = [group.name for group in attachment.groups]
            trained.multipliers = dict(zip(names, attachment.multipliers, strict=True))
    elif training.recording is not None:
        with fslr.torch.Recorder(
            model, optimizer, every=training.recording.every, options=training.recording.options
        ) as recorder:
            totals: list[tuple[int, float]] = []

            def collect(step: int, estimate: fslr.torch.RateEstimate) -> None:
                if estimate.total_rate is not None:
                    totals.append((step, estimate.total_rate / training.learning_rate))

            yield _after_measured_steps(recorder, collect)
        trained.totals = tuple(totals)
        trained.unanswered = recorder.failures
        trained.content = recorder.profile(
            Provenance(
                model=f"{training.setting.model}: {training.setting.text}",
                width=training.setting.width,
                depth=training.setting.depth,
                dataset="scikit-learn's digits, or the standard library's sources and help topics",
                batch_size=training.setting.batch_size,
                loss_name="cross-entropy",
                commit=f"fslr-advisor {version('fslr-advisor')}",
                author="the transfer benchmark",
            ),
        ).SerializeToString()
    else:
        yield _do_nothing


def _after_measured_steps(
    recorder: fslr.torch.Recorder, act: Callable[[int, fslr.torch.RateEstimate], None]
) -> Callable[[], None]:
    """Return a function to call after each step, which calls ``act`` after the measured ones."""
    step = 0
    newest: fslr.torch.RateEstimate | None = None

    def after_step() -> None:
        nonlocal step, newest
        estimate = recorder.estimate
        if estimate is not None and estimate is not newest:
            newest = estimate
            act(step, estimate)
        step += 1

    return after_step


def _do_nothing() -> None:
    """Do nothing after a step."""
