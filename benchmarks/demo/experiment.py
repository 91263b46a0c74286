"""The steps of the demo: sweep, record, register, train the wide model plain and advised, sweep."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import torch
from torch import nn

import fslr.torch
from benchmarks.char_gpt import CharGPTConfig
from benchmarks.text import Corpus
from benchmarks.training import TrainingPlan, TrainingResult, train
from benchmarks.transfer.figures import missing_octave
from fslr import Provenance
from fslr.advisor.v1 import profile_pb2, run_service_pb2

_INTERVAL_STEPS = 25  # between recorded points
_SWEPT_OCTAVES = 8  # on either side of the base's best learning rate, at most
PROFILE = "char-gpt"

Progress = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]
"""Opens a progress bar, given a title and the number of steps.

The context is a function to call with the loss after each step.
"""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Sizes of the demo.

    Attributes:
        base_width: Width of the small model.
        width: Width of the big model.
        blocks: Number of blocks of both models.
        steps: Optimizer steps of every training.
        octaves: log2 of the learning rates of the sweep.
        seed: Seed of weights, data and probes.
    """

    base_width: int = 32
    width: int = 256
    blocks: int = 2
    steps: int = 200
    octaves: tuple[int, ...] = (-4, -5, -6, -7, -8, -9)
    seed: int = 0


@dataclass(slots=True)
class DemoResult:
    """The results of the demo.

    Attributes:
        sweep: Validation loss of the base at each learning rate.
        learning_rate: The base's best learning rate, which is transferred.
        profile: The registered name of the profile, with its version.
        content: The profile.
        base: Training of the base at its best learning rate.
        plain: Training of the big model at that learning rate, observed only.
        plain_sweep: Validation loss of the plain big model at that learning rate, and at others
            until the best one is inside.
        advised: Training of the big model at that learning rate, with recommendations.
        plain_events: Measurements of the plain run.
        advised_events: Measurements and recommendations of the advised run.
    """

    sweep: dict[float, float]
    learning_rate: float
    profile: str
    content: profile_pb2.ProfileContent
    base: TrainingResult
    plain: TrainingResult
    plain_sweep: dict[float, float]
    advised: TrainingResult
    plain_events: list[run_service_pb2.RunEvent]
    advised_events: list[run_service_pb2.RunEvent]


def run_demo(plan: DemoPlan, corpus: Corpus, address: str, progress: Progress) -> DemoResult:
    """Run the demo against an advisor service.

    Args:
        plan: The sizes.
        corpus: The text.
        address: ``host:port`` of the service.
        progress: Opens progress bars.
    """
    shape = CharGPTConfig(len(corpus.vocabulary), plan.base_width, plan.blocks)
    sweep: dict[float, float] = {}
    results: dict[float, TrainingResult] = {}
    contents: dict[float, profile_pb2.ProfileContent] = {}
    with progress("base: sweep of learning rates", plan.steps * len(plan.octaves)) as on_step:
        for octave in plan.octaves:
            learning_rate = 2.0**octave
            base_plan = TrainingPlan(shape, learning_rate, plan.steps, seed=plan.seed)
            content, result = _record(base_plan, corpus, on_step)
            contents[learning_rate], results[learning_rate] = content, result
            sweep[learning_rate] = result.validation_loss
    best = min(sweep, key=lambda learning_rate: sweep[learning_rate])

    big_plan = TrainingPlan(replace(shape, width=plan.width), best, plan.steps, seed=plan.seed)
    with fslr.AdvisorClient(address) as client:
        profile = client.register_profile(PROFILE, contents[best]).profile.name
        train_big = partial(_train_attached, big_plan, corpus, profile=profile, address=address)
        with progress(f"plain: width {plan.width}", plan.steps) as on_step:
            plain = train_big(on_step, run="plain")
        with progress(f"advised: width {plan.width}", plan.steps) as on_step:
            advised = train_big(on_step, run="advised")
        plain_sweep = _sweep_plain(big_plan, plain.validation_loss, corpus, progress)
        return DemoResult(
            sweep=sweep,
            learning_rate=best,
            profile=profile,
            content=contents[best],
            base=results[best],
            plain=plain,
            plain_sweep=plain_sweep,
            advised=advised,
            plain_events=list(client.get_run_history("plain")),
            advised_events=list(client.get_run_history("advised")),
        )


def _record(
    plan: TrainingPlan, corpus: Corpus, on_step: Callable[[float], None]
) -> tuple[profile_pb2.ProfileContent, TrainingResult]:
    """Train the base model and record its profile."""
    recorders: list[fslr.torch.Recorder] = []

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Recorder:
        recorders.append(fslr.torch.Recorder(model, optimizer, every=_INTERVAL_STEPS))
        return recorders[0]

    result = train(plan, corpus, attach=attach, on_step=on_step)
    content = recorders[0].profile(
        Provenance(
            model=f"char GPT, width {plan.config.width}, {plan.config.blocks} blocks",
            width=plan.config.width,
            depth=plan.config.blocks,
            dataset="pydoc topics and sources of the Python standard library",
            batch_size=plan.batch_size,
            loss_name="cross-entropy",
            commit=f"fslr-advisor {version('fslr-advisor')}",
            author="the demo",
        ),
    )
    return content, result


def _sweep_plain(
    plan: TrainingPlan, loss: float, corpus: Corpus, progress: Progress
) -> dict[float, float]:
    """Sweep the plain big model by octaves, from the base's best learning rate downwards.

    Args:
        plan: The big model at the base's best learning rate.
        loss: Its validation loss.
        corpus: The text.
        progress: Opens progress bars.

    Returns:
        Validation losses by learning rate, the highest learning rate first.
    """
    start = round(math.log2(plan.learning_rate))
    losses = {start: [loss]}
    octave: int | None = start - 1
    while octave is not None:
        title = f"plain: at {2.0**octave:.2g} instead"
        with progress(title, plan.steps) as on_step:
            result = train(replace(plan, learning_rate=2.0**octave), corpus, on_step=on_step)
        losses[octave] = [result.validation_loss]
        octave = missing_octave(losses, start - _SWEPT_OCTAVES, start + _SWEPT_OCTAVES)
    return {2.0**octave: losses[octave][0] for octave in sorted(losses, reverse=True)}


def _train_attached(
    plan: TrainingPlan,
    corpus: Corpus,
    on_step: Callable[[float], None],
    *,
    profile: str,
    address: str,
    run: str,
) -> TrainingResult:
    """Train the big model as a run of this name; the run ``plain`` is only observed."""

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Attachment:
        return fslr.torch.attach(
            model,
            optimizer,
            profile=profile,
            advisor=address,
            run=run,
            total_steps=plan.steps,
            observe_only=run == "plain",
            answers="wait",  # so that the figures repeat
        )

    return train(plan, corpus, attach=attach, on_step=on_step)
