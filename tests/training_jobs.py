"""A small real training job: a character GPT that trains on real text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.text import Corpus, load_corpus
from benchmarks.training import Attach, TrainingPlan, TrainingResult, no_attachment, train
from fslr import Provenance
from fslr.advisor.v1 import policy_pb2, profile_pb2
from tests import spy_advisor


@cache
def corpus() -> Corpus:
    return load_corpus()


def plan(*, width: int = 16, blocks: int = 1, steps: int = 6, lr: float = 0.01) -> TrainingPlan:
    config = CharGPTConfig(len(corpus().vocabulary), width, blocks, context=16)
    return TrainingPlan(config, lr, steps, batch_size=8)


def run(job: TrainingPlan, attach: Attach = no_attachment) -> TrainingResult:
    return train(job, corpus(), attach=attach)


@cache
def recorded(width: int = 16, blocks: int = 1) -> profile_pb2.ProfileContent:
    recorders: list[fslr.torch.Recorder] = []
    provenance = Provenance(
        model="char GPT",
        width=width,
        depth=blocks,
        dataset="standard library",
        batch_size=8,
        commit="0123abc",
        author="a test",
    )

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Recorder:
        recorders.append(fslr.torch.Recorder(model, optimizer, every=2, provenance=provenance))
        return recorders[0]

    run(plan(width=width, blocks=blocks), attach)
    return recorders[0].profile(provenance)


def in_process() -> InProcessAdvisor:
    return InProcessAdvisor(recorded())


class SpyAdvisor(spy_advisor.SpyAdvisor):
    """An in-process advisor for the recorded profile that keeps the measurements it receives."""

    def __init__(self) -> None:
        super().__init__(recorded())


def attaching(
    seen: list[fslr.torch.Attachment], make: Callable[..., fslr.torch.Attachment]
) -> Attach:
    """Return an attach function that appends each attachment to ``seen``."""

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Attachment:
        seen.append(make(model, optimizer))
        return seen[-1]

    return attach


OFTEN = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=4)


def wide() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], Tensor]]:
    """Return a model twice as wide as the recorded one, its optimizer, and a backward pass."""
    torch.manual_seed(0)
    model = CharGPT(plan(width=32).config)
    inputs = torch.randint(0, 90, (8, 16))

    def backward() -> Tensor:
        loss: Tensor = nn.functional.cross_entropy(model(inputs).flatten(0, 1), inputs.flatten())
        model.zero_grad()
        loss.backward()
        return loss

    return model, torch.optim.Adam(model.parameters(), lr=0.01), backward
