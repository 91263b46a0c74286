"""What happens with one optimizer: recorded, advised, checkpointed."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Literal, TypedDict

import torch

from benchmarks.optimizers.advisor import ChangingAdvisor
from benchmarks.optimizers.building import Built, build
from benchmarks.optimizers.job import Job
from benchmarks.optimizers.judging import Judge
from fslr.errors import AttachError
from fslr.torch import Recorder, attach
from fslr.training.events import AdviceAdopted, Event, Failed, Warned

STEPS = 9
INTERVAL = 3  # steps between measurements, each of which changes the multipliers
TOLERANCE = 0.05  # of a step, relative to the one that it should be

Where = Literal["learning rates", "update", "refused", "wrong", "not judged", "not tried"]
"""Where multipliers act; ``wrong``: not as reported, or something else is wrong.

``not judged``: it takes too long to tell. ``not tried``: the class trains nothing here.
"""


class Outcome(TypedDict):
    """What happened with an optimizer.

    Attributes:
        name: Its class.
        where: Where multipliers act.
        reason: Why, where it is not on the learning rates.
        deviation: Largest distance of a tensor's step from what it should be, relative to that;
            None if it was not trained with multipliers.
        measured: Whether unit rates were measured.
        starts_late: Whether multipliers come into force at the second step, because the first
            answer comes after the first step, and that moves nothing, or the optimizer would undo a
            correction of it.
        steps: How it was stepped, and with which arguments, where that is not the usual way.
    """

    name: str
    where: Where
    reason: str
    deviation: float | None
    measured: bool
    starts_late: bool
    steps: str


def try_optimizer(package: str, name: str) -> Outcome:
    """Return what happens with an optimizer of an installed package.

    Args:
        package: The package, as in :data:`benchmarks.optimizers.packages.PACKAGES`.
        name: The class.
    """
    stance = torch.compiler.set_stance("force_eager")
    with warnings.catch_warnings(), stance:
        warnings.simplefilter("ignore")
        built = build(package, name)
        if isinstance(built, str):
            return _outcome(name, "not tried", built)
        return {**_tried(name, built), "steps": built.how}


def _outcome(
    name: str,
    where: Where,
    reason: str,
    deviation: float | None = None,
    *,
    measured: bool = False,
    starts_late: bool = False,
) -> Outcome:
    return Outcome(
        name=name,
        where=where,
        reason=" ".join(reason.split()),
        deviation=deviation,
        measured=measured,
        starts_late=starts_late,
        steps="",
    )


def _tried(name: str, built: Built) -> Outcome:
    plain = built.make()
    losses = _train(plain)
    try:
        training = _Training(built)
        recorded = _recorded(built)
        training.run()
    except AttachError as error:
        return _outcome(name, "refused", str(error))
    except Exception as error:  # noqa: BLE001 - any code
        return _outcome(name, "wrong", f"it raises {_text(error)}")
    problems = training.problems
    if not _equal(plain, recorded.job) and _equal(plain, _trained(built)):
        problems.append("recording changes the training")
    problems += recorded.problems
    if training.deviation > TOLERANCE:
        problems.append(f"multipliers are not applied: {training.worst}")
    if all(map(math.isfinite, losses)) and not all(map(math.isfinite, training.losses)):
        problems.append("it diverges")
    if _resumes(built, plain) and not _resumes(built, training.job):
        problems.append("its checkpoint does not resume the training")
    where: Where = "wrong" if problems else "update" if training.by_update else "learning rates"
    return _outcome(
        name,
        where,
        "; ".join(problems) or training.by_update,
        training.deviation,
        measured=recorded.is_measured and training.is_measured,
        starts_late=training.starts_late,
    )


def _train(job: Job) -> list[float]:
    return [job.step(step) for step in range(STEPS)]


def _trained(built: Built) -> Job:
    job = built.make()
    _train(job)
    return job


def _equal(one: Job, other: Job) -> bool:
    return all(map(torch.equal, one.weights(), other.weights()))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


class _Training:
    """A training with a recorder or an attachment, and what it reports.

    Attributes:
        job: The job.
        losses: The loss of each step.
        by_update: Why multipliers act on the update; empty: they act on learning rates.
        is_measured: Whether unit rates above 0 were measured at each measurement.
        deviation: Largest deviation of a tensor's step.
        worst: Where it is.
        problems: What is wrong.
    """

    def __init__(self, built: Built) -> None:
        self.job = built.make()
        self.losses: list[float] = []
        self.by_update = ""
        self.is_measured = True
        self.deviation = 0.0
        self.worst = ""
        self.problems: list[str] = []
        self._built = built
        self._adopted: dict[int, list[float]] = {}  # by the step from which they are in force
        self._in_force: list[list[float]] = []
        self._found: list[list[float]] = []

    @property
    def starts_late(self) -> bool:
        """Whether multipliers come into force at the second step."""
        return bool(self._adopted) and min(self._adopted) > 0

    def record(self) -> None:
        """Train with a recorder."""
        with Recorder(
            self.job.model, self.job.optimizer, every=INTERVAL, listeners=[self._listen]
        ) as recorder:
            self.losses = _train(self.job)
            estimate = recorder.estimate
        self.is_measured &= estimate is not None and any(rate > 0 for rate in estimate.unit_rates)

    def run(self) -> None:
        """Train with an attachment, and judge each step."""
        job = self.job
        groups = _groups(job.optimizer)
        judge = Judge(job, self._built.make())
        with attach(
            job.model,
            job.optimizer,
            profile="any",
            advisor=ChangingAdvisor(INTERVAL),
            answers="wait",
            max_overhead=None,
            strict=False,
            listeners=[self._listen],
        ) as attachment:
            places = {id(p): place for place, p in enumerate(job.model.parameters())}
            tensors = [places[id(group.parameter)] for group in attachment.groups]
            names = [group.name for group in attachment.groups]
            for step in range(STEPS):
                judge.step(step)
                self._compare(judge, step, tensors)
                if _groups(job.optimizer) != groups:
                    self.problems.append("its groups are left changed")
                    break
            self._conclude(judge, tensors, names)
            if all(multiplier == 1 for multiplier in attachment.multipliers):
                self.problems.append("no multipliers came into force")
        self.losses = judge.losses

    def _compare(self, judge: Judge, step: int, tensors: Sequence[int]) -> None:
        """Compare the latest step with the multipliers that were reported to be in force."""
        in_force = self._adopted.get(step) or (self._in_force[-1] if step else [1.0] * len(tensors))
        found = [judge.deviation(t, m) for t, m in zip(tensors, in_force, strict=True)]
        self._in_force.append(in_force)
        self._found.append(found)

    def _conclude(self, judge: Judge, tensors: Sequence[int], names: Sequence[str]) -> None:
        """Find the largest deviation."""
        for place, (tensor, name) in enumerate(zip(tensors, names, strict=True)):
            found = [each[place] for each in self._found]
            multipliers = [each[place] for each in self._in_force]
            settled = self._settled
            if max(found) > TOLERANCE >= max(found[:settled]) and not self.by_update:
                late = judge.deviation_from_schedule(self._built.make(), tensor, multipliers)
                found = [*found[:settled], late]
            deviation = max(found)
            if deviation > self.deviation:
                self.deviation = deviation
                step = found.index(deviation)
                self.worst = f"{name} at step {step} with multiplier {multipliers[step]:g}"

    @property
    def _settled(self) -> int:
        """The first step with other multipliers than the first step."""
        steps = sorted(self._adopted)
        if self.starts_late:
            return steps[0]
        return steps[1] if len(steps) > 1 else STEPS

    def _listen(self, event: Event) -> None:
        if isinstance(event, AdviceAdopted):
            self._adopted[event.step] = list(event.multipliers)
        elif isinstance(event, Failed):
            self.is_measured = False
            self.problems.append(f"step {event.step} fails: {_text(event.error)}")
        elif isinstance(event, Warned) and "multipliers act on the updates of" in event.message:
            self.by_update = event.message.partition(": ")[2]


def _recorded(built: Built) -> _Training:
    training = _Training(built)
    training.record()
    return training


def _groups(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [list(map(id, group["params"])) for group in optimizer.param_groups]


def _resumes(built: Built, job: Job) -> bool:
    """Return whether a job that is resumed from its optimizer's checkpoint goes on as it does.

    Args:
        built: How the job is made.
        job: The job, at its end.
    """
    try:
        resumed, goes_on = built.make(), job.copied()
        resumed.model.load_state_dict(job.model.state_dict())
        resumed.optimizer.load_state_dict(copy.deepcopy(job.optimizer.state_dict()))
        resumed.step(STEPS)
        goes_on.step(STEPS)
    except Exception:  # noqa: BLE001 - any code
        return False
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6)
        for a, b in zip(resumed.weights(), goes_on.weights(), strict=True)
    )
