"""``python -m benchmarks adapters``: LoRA across ranks, with separate and with joint multipliers.

The factors A and B of an adapter have one rate, that of the change of the outputs which the steps
of both make (:mod:`fslr.training.adapter_rates`), and so one multiplier. Here this is compared with
a rate of their own for each: a profile of a small rank is recorded once, its joint rates are
computed from the same measurements, and a large rank trains with either. The layers here have an
activation beside their factors that is never called, so the client keeps their rates apart.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from benchmarks.options import Processes
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.training import loss_of
from benchmarks.transfer.bench import PROCESSES, THREADS
from benchmarks.transfer.lora import ALPHA, LoRALinear
from benchmarks.transfer.models import Task, build_task
from benchmarks.transfer.optimizers import build_optimizer
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.training import final_loss, start_worker
from fslr import Provenance, RunSession
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2, profile_service_pb2
from fslr.training.adapter_rates import with_joint_rates
from fslr.training.estimate import RateEstimate

Scale = Literal["8 / rank", "2"]
"""The scale alpha / rank of the adapters: alpha stays 8, or is twice the rank."""

SCALES: tuple[Scale, ...] = get_args(Scale)
_RANKS = (4, 32)  # of base and run
_SEEDS = (0, 1, 2)
_OCTAVES = (-5, -6, -7, -8)
_STEPS = 150
_EVERY = 25


class AdapterRow(TypedDict):
    """Losses at one learning rate, each a mean over the seeds, in nats.

    Attributes:
        scale: The adapters' scale.
        octave: log2 of the learning rate of base and run.
        base: Loss of the base, with the small rank.
        plain: Loss of the large rank without advice.
        separate: Its loss with a multiplier for each factor.
        joint: Its loss with one multiplier for both.
        change: Mean difference of ``joint`` from ``separate``.
        error: Standard error of that difference over seeds.
    """

    scale: str
    octave: int
    base: float
    plain: float
    separate: float
    joint: float
    change: float
    error: float


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of the trainings with one seed, as in :class:`AdapterRow`."""

    base: float
    plain: float
    separate: float
    joint: float


def adapters(processes: Processes = PROCESSES, as_json: AsJson = False, out: Out = None) -> None:
    """Compare separate and joint multipliers of LoRA's factors, from rank 4 to 32."""
    plans = [(s, octave, seed) for s in SCALES for octave in _OCTAVES for seed in _SEEDS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=start_worker) as pool:
        losses = list(pool.map(losses_of, *zip(*plans, strict=True)))
    by_plan = dict(zip(plans, losses, strict=True))
    rows = [
        row_of(scale, octave, [by_plan[scale, octave, seed] for seed in _SEEDS])
        for scale in SCALES
        for octave in _OCTAVES
    ]
    figures = {"adapters": rows, "seeds": len(_SEEDS), "ranks": list(_RANKS)}
    emit(figures, as_json=as_json, out=out, without=("--processes",), threads=THREADS)
    if not as_json:
        _print(rows)


def row_of(scale: Scale, octave: int, losses: Sequence[Losses]) -> AdapterRow:
    """Return the row of trainings that differ in their seeds."""
    changes = [each.joint - each.separate for each in losses]
    return AdapterRow(
        scale=scale,
        octave=octave,
        base=statistics.fmean(each.base for each in losses),
        plain=statistics.fmean(each.plain for each in losses),
        separate=statistics.fmean(each.separate for each in losses),
        joint=statistics.fmean(each.joint for each in losses),
        change=statistics.fmean(changes),
        error=statistics.stdev(changes) / len(changes) ** 0.5,
    )


def losses_of(scale: Scale, octave: int, seed: int) -> Losses:
    """Train a base, and the large rank in each way, with one seed.

    Args:
        scale: The adapters' scale.
        octave: log2 of the learning rate.
        seed: Seed of adapters and batches.
    """
    small, large = _RANKS
    base, separate, joint = _recorded(_task(scale, small, seed), octave, seed)
    return Losses(
        base,
        _trained(_task(scale, large, seed), octave, seed),
        _trained(_task(scale, large, seed), octave, seed, InProcessAdvisor(separate)),
        _trained(_task(scale, large, seed), octave, seed, JointAdvisor(joint)),
    )


def pairs_of(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the indices of the factors A and B of each adapter.

    Args:
        names: The groups' names, as :class:`.LoRALinear` gives them.
    """
    places = {name: place for place, name in enumerate(names)}
    return [
        (place, places[f"{name.removesuffix('a.weight')}b.weight"])
        for name, place in places.items()
        if name.endswith(".a.weight")
    ]


def joint_estimate(event: fslr.Measured) -> RateEstimate:
    """Return a measurement in which both factors of an adapter have the joint rate."""
    learning_rates = [
        scheduled * factor
        for scheduled, factor in zip(event.learning_rates, event.multipliers, strict=True)
    ]
    return with_joint_rates(event.estimate, pairs_of(event.groups), learning_rates)


class JointAdvisor:
    """An advisor that receives the joint rates of adapters.

    Its method ``listen`` has to be a listener of the attachment.

    Args:
        content: The profile, with joint rates.
    """

    def __init__(self, content: profile_pb2.ProfileContent) -> None:
        self._advisor = InProcessAdvisor(content)
        self._joint: RateEstimate | None = None

    def listen(self, event: fslr.Event, /) -> None:
        """Keep the joint rates of a measurement."""
        if isinstance(event, fslr.Measured):
            self._joint = joint_estimate(event)

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Ask the advisor whether a layout maps."""
        return self._advisor.validate_layout(opening)

    def open_run(self, opening: pb.RunOpening) -> RunSession:
        """Open a run at the advisor."""
        self._session = self._advisor.open_run(opening)
        return self

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement with joint rates."""
        if self._joint is not None:
            measurement.unit_rates[:] = self._joint.unit_rates
            measurement.relative_errors[:] = self._joint.relative_errors
        return self._session.recommend(measurement)

    def close(self) -> None:
        """Close the run."""
        self._session.close()


def _task(scale: Scale, rank: int, seed: int) -> Task:
    torch.manual_seed(seed)
    task = build_task(Setting("lora_gpt", width=64, rank=rank))
    for module in task.model.modules():
        if isinstance(module, LoRALinear):
            module.scale = ALPHA / rank if scale == SCALES[0] else 2.0
    keep_apart(task.model)
    return task


def keep_apart(model: nn.Module) -> None:
    """Let the client not see that layers are adapted, so that factors have their own rates.

    Args:
        model: The model; its function does not change.
    """
    for module in list(model.modules()):
        if isinstance(module, LoRALinear):
            module.add_module("not_called", nn.ReLU())


def _recorded(
    task: Task, octave: int, seed: int
) -> tuple[float, profile_pb2.ProfileContent, profile_pb2.ProfileContent]:
    """Return the loss of a base, and its profile with separate and with joint rates."""
    joint: dict[int, RateEstimate] = {}

    def collect(event: fslr.Event) -> None:
        if isinstance(event, fslr.Measured):
            joint[event.step] = joint_estimate(event)

    optimizer = build_optimizer("AdamW", task.model, 2.0**octave, {})
    with fslr.torch.Recorder(task.model, optimizer, every=_EVERY, listeners=[collect]) as recorder:
        loss = _train(task, optimizer, seed)
    separate = recorder.profile(Provenance("the study of adapters"))
    content = profile_pb2.ProfileContent()
    content.CopyFrom(separate)
    for point in content.points:
        point.unit_rates[:] = joint[point.step].unit_rates
        point.relative_errors[:] = joint[point.step].relative_errors
    return loss, separate, content


def _trained(
    task: Task, octave: int, seed: int, advisor: InProcessAdvisor | JointAdvisor | None = None
) -> float:
    """Return the loss of a training, with advice if there is an advisor."""
    optimizer = build_optimizer("AdamW", task.model, 2.0**octave, {})
    if advisor is None:
        return _train(task, optimizer, seed)
    listeners = [advisor.listen] if isinstance(advisor, JointAdvisor) else []
    with fslr.torch.attach(
        task.model,
        optimizer,
        profile="adapters",
        advisor=advisor,
        total_steps=_STEPS,
        answers="wait",
        listeners=listeners,
    ) as attachment:
        loss = _train(task, optimizer, seed)
    if attachment.failures or attachment.unanswered:
        raise RuntimeError(f"{attachment.failures} steps failed, {attachment.unanswered} requests")
    return loss


def _train(task: Task, optimizer: torch.optim.Optimizer, seed: int) -> float:
    batches = torch.Generator().manual_seed(seed + 1)
    losses: list[float] = []
    for _ in range(_STEPS):
        loss = loss_of(task.model, *task.draw(batches))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return final_loss(losses, _STEPS)


def _print(rows: list[AdapterRow]) -> None:
    heads = ("scale", "log2 of the learning rate", "base", "plain", "separate", "joint", "change")
    table = Table(*heads)
    for row in rows:
        table.add_row(
            row["scale"],
            str(row["octave"]),
            *(f"{row[name]:.3f}" for name in ("base", "plain", "separate", "joint")),
            f"{row['change']:+.3f} ± {2 * row['error']:.3f}",
        )
    Console().print(table)
