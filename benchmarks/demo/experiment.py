"""What the demo does: sweep, record, register, and train the wide model plain and advised."""

from __future__ import annotations

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
from fslr import Provenance
from fslr.advisor.v1 import profile_pb2, run_service_pb2

_EVERY = 25  # steps between recorded points
PROFILE = "char-gpt"

Progress = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]
"""Opens a progress bar: (what, steps) -> called with the loss after each step."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Sizes of the demo.

    Attributes:
        base_width: Channels of the small model.
        width: Channels of the big model.
        blocks: Blocks of both.
        steps: Optimizer steps of every training.
        octaves: Learning rates of the sweep, as powers of two.
        seed: Seed of everything.
    """

    base_width: int = 32
    width: int = 256
    blocks: int = 2
    steps: int = 200
    octaves: tuple[int, ...] = (-4, -5, -6, -7, -8, -9)
    seed: int = 0


@dataclass(slots=True)
class DemoResult:
    """What the demo found.

    Attributes:
        sweep: Validation loss of the base at each learning rate.
        learning_rate: The base's best one, transferred.
        profile: The profile's registered name, with its version.
        content: The profile.
        base: The base at its best learning rate.
        plain: The big model at that learning rate.
        advised: The big model at that learning rate, with advice.
        plain_events: What the plain run reported (it only observed).
        advised_events: What the advised run reported, and the answers.
    """

    sweep: dict[float, float]
    learning_rate: float
    profile: str
    content: profile_pb2.ProfileContent
    base: TrainingResult
    plain: TrainingResult
    advised: TrainingResult
    plain_events: list[run_service_pb2.RunEvent]
    advised_events: list[run_service_pb2.RunEvent]


def run_demo(plan: DemoPlan, corpus: Corpus, address: str, progress: Progress) -> DemoResult:
    """Run the demo against an advisor service.

    Args:
        plan: Its sizes.
        corpus: The text.
        address: ``host:port`` of the service.
        progress: Shows how far it is.
    """
    shape = CharGPTConfig(len(corpus.vocabulary), plan.base_width, plan.blocks)
    sweep: dict[float, float] = {}
    results: dict[float, TrainingResult] = {}
    contents: dict[float, profile_pb2.ProfileContent] = {}
    with progress("base: sweep of learning rates", plan.steps * len(plan.octaves)) as on_step:
        for octave in plan.octaves:
            rate = 2.0**octave
            base_plan = TrainingPlan(shape, rate, plan.steps, seed=plan.seed)
            contents[rate], results[rate] = _record(base_plan, corpus, on_step)
            sweep[rate] = results[rate].validation_loss
    best = min(sweep, key=lambda rate: sweep[rate])

    big_plan = TrainingPlan(replace(shape, width=plan.width), best, plan.steps, seed=plan.seed)
    with fslr.AdvisorClient(address) as client:
        profile = client.register_profile(PROFILE, contents[best]).profile.name
        train_big = partial(_train_attached, big_plan, corpus, profile=profile, address=address)
        with progress(f"plain: width {plan.width}", plan.steps) as on_step:
            plain = train_big(on_step, run="plain")
        with progress(f"advised: width {plan.width}", plan.steps) as on_step:
            advised = train_big(on_step, run="advised")
        return DemoResult(
            sweep=sweep,
            learning_rate=best,
            profile=profile,
            content=contents[best],
            base=results[best],
            plain=plain,
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
        recorders.append(fslr.torch.Recorder(model, optimizer, every=_EVERY))
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


def _train_attached(
    plan: TrainingPlan,
    corpus: Corpus,
    on_step: Callable[[float], None],
    *,
    profile: str,
    address: str,
    run: str,
) -> TrainingResult:
    """Train the big model under the run's name; the run ``plain`` only looks on."""

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Attachment:
        return fslr.torch.attach(
            model,
            optimizer,
            profile=profile,
            advisor=address,
            run=run,
            total_steps=plan.steps,
            observe_only=run == "plain",
        )

    return train(plan, corpus, attach=attach, on_step=on_step)
