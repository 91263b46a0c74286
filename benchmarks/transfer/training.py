"""One training of a transfer case, as a worker process runs it: plain, recorded, or advised.

A training is data: whatever it needs crosses to a worker process, and the same data gives the same
losses, whichever worker runs it and whatever ran there before.
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
from benchmarks.transfer.models import build_task
from benchmarks.transfer.optimizers import OptimizerName, build_optimizer
from benchmarks.transfer.parametrisation import Parametrisation, Standard
from benchmarks.transfer.settings import Setting
from fslr import Provenance, RunInfo
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, profile_service_pb2
from fslr.protocols import RunSession

_ANSWER_TIMEOUT_S = 30.0
LAST_PART = 0.2  # of a training's steps: their mean loss is the training's loss


Totals = tuple[tuple[int, float], ...]
"""Total rates over the learning rate, at steps."""

Adjust = Callable[
    [advisor_service_pb2.RecommendLRResponse, fslr.torch.RateEstimate, Totals],
    advisor_service_pb2.RecommendLRResponse,
]
"""Maps (answer, the measurement behind it, the base's totals) to the answer that is used."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How a profile is recorded.

    Attributes:
        every: Steps between measurements.
        options: How to measure.
    """

    every: int = 25
    options: fslr.torch.MeasuringOptions = field(default_factory=fslr.torch.MeasuringOptions)


@dataclass(frozen=True, slots=True)
class Advice:
    """How a training is advised.

    Attributes:
        policy: Rules instead of the profile's own (there: the defaults).
        options: How to measure.
        adjust: Changes an answer before it is used, for ideas that the service has not; None: not.
    """

    policy: policy_pb2.Policy | None = None
    options: fslr.torch.MeasuringOptions = field(default_factory=fslr.torch.MeasuringOptions)
    adjust: Adjust | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """A training to run.

    Attributes:
        setting: The model.
        base: Where the learning rate was tuned; for parametrisations.
        optimizer: Which optimizer.
        learning_rate: Absolute, constant.
        steps: Optimizer steps.
        seed: Of the initial weights and of the batches.
        parametrisation: How the model is prepared.
        recording: How to record a profile on the way; None: not.
        advice: How to be advised; None: not. Needs ``profile`` and ``address``.
        profile: Name of the profile to be advised with.
        address: ``host:port`` of the service.
        totals: Of the base's training, for ``advice.adjust``.
    """

    setting: Setting
    base: Setting
    optimizer: OptimizerName
    learning_rate: float
    steps: int
    seed: int
    parametrisation: Parametrisation = field(default_factory=Standard)
    recording: Recording | None = None
    advice: Advice | None = None
    profile: str = ""
    address: str = ""
    totals: Totals = ()


@dataclass(slots=True)
class Trained:
    """What came of a training.

    Attributes:
        loss: Mean training loss of the last fifth of the steps, nats; infinite: it diverged.
        seconds: Wall time of the training loop.
        losses: Training loss of each step, nats.
        unevenness: Processor time of all steps over that of as many median ones: 1 where all steps
            take as long; measured steps raise it, whatever else the machine does.
        content: The recorded profile, serialised; empty: none, or the training diverged.
        totals: What was recorded beside it.
        unanswered: Measurements that could not be made or were not answered.
        multipliers: The last multipliers of each group, by name; empty: not advised.
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
    """Return a training's loss: the mean over the last fifth of its steps.

    Trainings of one seed see the same batches, so the batches' noise cancels where they are
    compared; and a mean over steps is less noisy than one validation of the last weights, which a
    constant learning rate leaves jumping about. A training that stopped early diverged.

    Args:
        losses: Of each step that was taken.
        steps: How many were planned.
    """
    if len(losses) < steps or not math.isfinite(losses[-1]):
        return math.inf
    last = losses[-max(1, round(LAST_PART * steps)) :]
    return sum(last) / len(last)


_Answer = Callable[
    [advisor_service_pb2.RecommendLRResponse], advisor_service_pb2.RecommendLRResponse
]


class PromptAdvisor:
    """Passes everything on to a service, and lets a training wait for answers under way.

    A training job takes answers when they come; which step that is depends on the machine's load.
    Here the next step waits, so that a training can be repeated.

    Args:
        client: The service.
        adjust: Changes answers on their way.
    """

    def __init__(self, client: fslr.AdvisorClient, adjust: _Answer = lambda answer: answer) -> None:
        self._client = client
        self._adjust = adjust
        self._changed = threading.Condition()
        self._ended = 0

    def validate_layout(
        self, opening: advisor_service_pb2.RunOpening
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Ask the service whether a layout maps.

        Args:
            opening: The run.
        """
        return self._client.validate_layout(opening)

    def open_run(self, opening: advisor_service_pb2.RunOpening) -> RunSession:
        """Open a run at the service.

        Args:
            opening: The run.
        """
        return _PromptSession(self._client.open_run(opening), self._count, self._adjust)

    def _count(self) -> None:
        with self._changed:
            self._ended += 1
            self._changed.notify_all()

    def wait(self, measurements: int) -> None:
        """Wait until so many measurements were answered or failed.

        Args:
            measurements: The number, since the run was opened.

        Raises:
            TimeoutError: They were not.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._ended >= measurements, timeout=_ANSWER_TIMEOUT_S
            ):
                raise TimeoutError(
                    f"the advisor answered {self._ended} of {measurements} measurements within "
                    f"{_ANSWER_TIMEOUT_S:g} s; see the service's log"
                )


class _PromptSession:
    """A run's session that tells when an answer is there."""

    def __init__(self, session: RunSession, ended: Callable[[], None], adjust: _Answer) -> None:
        self._session = session
        self._ended = ended
        self._adjust = adjust

    def recommend(
        self, measurement: advisor_service_pb2.Measurement
    ) -> advisor_service_pb2.RecommendLRResponse:
        try:
            return self._adjust(self._session.recommend(measurement))
        finally:
            self._ended()

    def close(self) -> None:
        self._session.close()


def start_worker() -> None:
    """Prepare a worker process: one thread, and no word on what the cases differ in by design."""
    torch.set_num_threads(1)  # THREADS of the bench
    logging.getLogger("fslr").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: a killed one cannot say so."""
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
    factors = training.parametrisation.prepare(model, training.setting, training.base)
    optimizer = build_optimizer(training.optimizer, model, training.learning_rate, factors)
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
    """Attach what the training asks for; yields what to call after each step."""
    if training.advice is not None:
        with fslr.AdvisorClient(training.address) as client:
            adjust = training.advice.adjust

            def adjusted(
                answer: advisor_service_pb2.RecommendLRResponse,
            ) -> advisor_service_pb2.RecommendLRResponse:
                if adjust is None or attachment.estimate is None:
                    return answer
                return adjust(answer, attachment.estimate, training.totals)

            advisor = PromptAdvisor(client, adjusted)
            with fslr.torch.attach(
                model,
                optimizer,
                profile=training.profile,
                advisor=advisor,
                total_steps=training.steps,
                run=RunInfo(policy=training.advice.policy),
                options=training.advice.options,
            ) as attachment:
                yield _waiting(attachment, advisor)
            trained.unanswered = attachment.unanswered + attachment.failures
            names = [group.name for group in attachment.groups]
            trained.multipliers = dict(zip(names, attachment.multipliers, strict=True))
    elif training.recording is not None:
        with fslr.torch.Recorder(
            model, optimizer, every=training.recording.every, options=training.recording.options
        ) as recorder:
            totals: list[tuple[int, float]] = []
            yield _collecting(recorder, training.learning_rate, totals)
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
        yield _nothing


def _waiting(attachment: fslr.torch.Attachment, advisor: PromptAdvisor) -> Callable[[], None]:
    """Return what waits, after a measured step, for the answer."""
    measured = 0
    newest: fslr.torch.RateEstimate | None = None

    def after_step() -> None:
        nonlocal measured, newest
        if attachment.estimate is not newest:
            newest = attachment.estimate
            measured += 1
            advisor.wait(measured)

    return after_step


def _collecting(
    recorder: fslr.torch.Recorder, learning_rate: float, totals: list[tuple[int, float]]
) -> Callable[[], None]:
    """Return what, after a measured step, puts its total rate into a list."""
    steps = 0
    newest: fslr.torch.RateEstimate | None = None

    def after_step() -> None:
        nonlocal steps, newest
        if recorder.estimate is not newest:
            newest = recorder.estimate
            if newest is not None and newest.total_rate is not None:
                totals.append((steps, newest.total_rate / learning_rate))
        steps += 1

    return after_step


def _nothing() -> None:
    """Wait for nothing."""
