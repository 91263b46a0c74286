"""One training of the practice benchmark: plain, recorded or advised.

A training is data that is sent to a worker process. The same data gives the same numbers, whichever
process runs it and whatever the process ran before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from benchmarks.practice.model import PracticeGPT
from benchmarks.practice.procedures import build_optimizer, schedule_factor
from benchmarks.practice.setups import Architecture, Procedure, Size
from benchmarks.text import load_corpus
from fslr import AdviceAdopted, Event, Provenance, RunInfo
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.profile_files import message_from_fields, message_to_fields

RECORD_EVERY = 25  # steps
_VALIDATION_SEQUENCES = 1024
_VALIDATION_BATCH = 64
_VALIDATION_SEED = 99


@dataclass(frozen=True, slots=True)
class Advice:
    """How a training is advised.

    Attributes:
        profile: The profile's content, serialized.
        policy: The policy, serialized; empty: the profile's, which is the default policy.
    """

    profile: bytes
    policy: bytes = b""


@dataclass(frozen=True, slots=True)
class Training:
    """A training to run.

    Attributes:
        architecture: The kind of model.
        procedure: How it is trained.
        size: The model's size.
        hidden_scale: Factor on the initial matrices of the blocks.
        octave: log2 of the learning rate.
        seed: Seed of the initial weights and of the batches.
        is_recorded: Whether a profile is recorded.
        advice: How it is advised; None for a plain training.
    """

    architecture: Architecture
    procedure: Procedure
    size: Size
    hidden_scale: float
    octave: int
    seed: int
    is_recorded: bool = False
    advice: Advice | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate that the schedule is built on."""
        return 2.0**self.octave


@dataclass(slots=True)
class Trained:
    """The result of a training.

    Attributes:
        loss: Loss on held-out text, in nats per character; infinite if the training diverged.
        seconds: Wall time.
        losses: Training loss of each step, in nats.
        profile: The recorded profile, serialized; empty if there is none.
        groups: The names of the groups, if the training was advised.
        multipliers: The multipliers that came into force, with their steps.
        failures: Measurements that failed or were not answered.
    """

    loss: float
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    profile: bytes = b""
    groups: list[str] = field(default_factory=list)
    multipliers: list[tuple[int, list[float]]] = field(default_factory=list)
    failures: int = 0

    @property
    def max_multiplier(self) -> float:
        """The largest multiplier that was in force."""
        return max((max(each) for _step, each in self.multipliers), default=1.0)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        content = profile_pb2.ProfileContent.FromString(self.profile)
        return {
            **asdict(self),
            "loss": self.loss if math.isfinite(self.loss) else None,
            "profile": message_to_fields(content) if self.profile else None,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the result that :meth:`to_json` returned as JSON data.

        Args:
            fields: The data.
        """
        profile = b""
        if fields["profile"] is not None:
            content = profile_pb2.ProfileContent()
            profile = message_from_fields(
                fields["profile"], content, "the result has a malformed profile"
            ).SerializeToString(deterministic=True)
        return cls(**{
            **fields,
            "loss": math.inf if fields["loss"] is None else fields["loss"],
            "profile": profile,
            "multipliers": [(step, values) for step, values in fields["multipliers"]],
        })


def run_training(training: Training) -> Trained:
    """Run a training.

    Args:
        training: The training.
    """
    begun = time.perf_counter()
    torch.manual_seed(training.seed)
    corpus = load_corpus()
    procedure = training.procedure
    model = PracticeGPT(
        training.architecture,
        training.size,
        len(corpus.vocabulary),
        procedure.context,
        training.hidden_scale,
    )
    optimizer = build_optimizer(procedure, model, training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_factor(procedure, step)
    )
    batches = torch.Generator().manual_seed(training.seed + 1)
    examples = procedure.accumulation * procedure.micro_batch
    trained = Trained(math.inf)
    with _attached(training, model, optimizer, trained):
        for _ in range(procedure.steps):
            inputs, targets = corpus.batch(corpus.train, examples, procedure.context, batches)
            loss = _accumulate(procedure, model, inputs, targets)
            trained.losses.append(round(loss, 5))
            if not math.isfinite(loss):
                break
            if procedure.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), procedure.clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        else:
            trained.loss = _validation_loss(model, procedure.context)
    if not math.isfinite(trained.loss):
        trained.loss, trained.profile = math.inf, b""
        trained.losses = [each for each in trained.losses if math.isfinite(each)]
    trained.seconds = round(time.perf_counter() - begun, 2)
    return trained


def _accumulate(procedure: Procedure, model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Add the gradients of all micro-batches and return their mean loss."""
    total = 0.0
    for micro_inputs, micro_targets in zip(
        inputs.split(procedure.micro_batch), targets.split(procedure.micro_batch), strict=True
    ):
        with torch.autocast("cpu", torch.bfloat16, enabled=procedure.bf16):
            logits = model(micro_inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), micro_targets.flatten())
        (loss / procedure.accumulation).backward()
        total += loss.item()
    return total / procedure.accumulation


@cache
def _held_out(context: int) -> tuple[Tensor, Tensor]:
    corpus = load_corpus()
    fixed = torch.Generator().manual_seed(_VALIDATION_SEED)
    return corpus.batch(corpus.validation, _VALIDATION_SEQUENCES, context, fixed)


@torch.no_grad()
def _validation_loss(model: nn.Module, context: int) -> float:
    model.eval()
    inputs, targets = _held_out(context)
    losses = [
        F.cross_entropy(model(each).flatten(0, 1), expected.flatten()).item()
        for each, expected in zip(
            inputs.split(_VALIDATION_BATCH), targets.split(_VALIDATION_BATCH), strict=True
        )
    ]
    return sum(losses) / len(losses)


@contextmanager
def _attached(
    training: Training, model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained
) -> Iterator[None]:
    """Attach a client or a recorder."""
    if training.advice is not None:
        with _advised(training, training.advice, model, optimizer, trained):
            yield
    elif training.is_recorded:
        with fslr.torch.Recorder(model, optimizer, every=RECORD_EVERY) as recorder:
            yield
        trained.failures = recorder.failures
        trained.profile = recorder.profile(
            Provenance(
                model="GPT of the practice benchmark",
                width=training.size.width,
                depth=training.size.blocks,
                dataset="the standard library's sources and help topics",
                batch_size=training.procedure.accumulation * training.procedure.micro_batch,
                loss_name="cross-entropy",
                commit="unknown",  # so that equal recordings are equal
                author="the practice benchmark",
            )
        ).SerializeToString(deterministic=True)
    else:
        yield


@contextmanager
def _advised(
    training: Training,
    advice: Advice,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    trained: Trained,
) -> Iterator[None]:
    """Attach an advisor in this process, whose answers come into force at the next step."""
    content = profile_pb2.ProfileContent.FromString(advice.profile)

    def collect(event: Event) -> None:
        if isinstance(event, AdviceAdopted):
            trained.multipliers.append((event.step, list(event.multipliers)))

    with fslr.torch.attach(
        model,
        optimizer,
        profile="base",
        advisor=InProcessAdvisor(content),
        total_steps=training.procedure.steps,
        run=RunInfo(
            policy=policy_pb2.Policy.FromString(advice.policy) if advice.policy else None,
        ),
        answers="wait",
        listeners=[collect],
    ) as attachment:
        yield
    trained.groups = [group.name for group in attachment.groups]
    trained.failures = attachment.unanswered + attachment.failures
