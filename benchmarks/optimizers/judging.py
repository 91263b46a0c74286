"""Judges by the weights whether the steps of an advised training follow its multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.optimizers.job import Job
from fslr.torch.optimizers import with_held

_NEARLY_ZERO = 1e-6  # of a learning rate
_MIN_DEPENDENT = 0.1  # part of a step that must depend on the learning rate to be compared alone
_ROUNDING = 4 * torch.finfo(torch.float32).eps  # of a weight, in each of two steps

_Moves = list[Tensor]


@dataclass(frozen=True, slots=True)
class _Oracle:
    """What a step of multiplier 1 does.

    Attributes:
        moves: How far it moves each tensor.
        still: How far a step of learning rate 0 moves each tensor, of which a multiplier changes
            nothing; None: such a step is not known.
    """

    moves: _Moves
    still: _Moves | None = None


class Judge:
    """Makes each step of a job, and the same step without multipliers.

    A step follows a multiplier if it is that many times as large as one of these:

    - the step that the optimizer makes unscaled from the same state and weights;
    - the same, of the part that depends on the learning rate: momentum and averages of earlier
      steps move weights too;
    - the step of an optimizer that has got the same gradients from the start, never scaled.

    All three are the same for an optimizer that remembers no learning rate.

    Args:
        job: The job, before its first step.
        unscaled: The same job, which nothing is attached to.

    Attributes:
        losses: The loss of each step.
        is_copied: Whether the job could be copied before each step. Otherwise steps are compared
            only with those of the unscaled job.
    """

    def __init__(self, job: Job, unscaled: Job) -> None:
        self.losses: list[float] = []
        self.is_copied = True
        self._job = job
        self._unscaled = unscaled
        self._before: list[Tensor] = []
        self._moves: _Moves = []
        self._oracles: list[_Oracle] = []
        self._steps: list[tuple[_Moves, list[Tensor | None]]] = []

    def step(self, number: int) -> None:
        """Make a step, and those that it is compared with.

        Args:
            number: Its number.
        """
        job = self._job
        copies = self._copies()
        self._before = job.weights()
        self.losses.append(job.step(number))
        self._moves = _moves(job, self._before)
        self._steps.append((self._moves, job.gradients))
        self._oracles = []
        if copies:
            plain, still = copies
            _multiply_learning_rates(still.optimizer, _NEARLY_ZERO)
            plain.step(number)
            still.step(number)
            moves = _moves(plain, self._before)
            self._oracles = [_Oracle(moves), _Oracle(moves, _moves(still, self._before))]
        if number == 0 or job.manner == "step":
            start = self._unscaled.weights()
            self._unscaled.step(number, None if number == 0 else job.gradients)
            self._oracles.append(_Oracle(_moves(self._unscaled, start)))

    def _copies(self) -> tuple[Job, Job] | None:
        if not self.is_copied:
            return None
        try:
            return self._job.copied(), self._job.copied()
        except Exception:  # noqa: BLE001 - any code
            self.is_copied = False
            return None

    def deviation(self, tensor: int, multiplier: float) -> float:
        """Return how far the latest step of a tensor is from what it should be, relative to that.

        Args:
            tensor: Its place among the model's parameters.
            multiplier: The multiplier that was reported to be in force.
        """
        return min(self._deviation(oracle, tensor, multiplier) for oracle in self._oracles)

    def deviation_from_schedule(self, job: Job, tensor: int, multipliers: Sequence[float]) -> float:
        """Return how far a tensor's steps are from those with a schedule of learning rates.

        That decides about optimizers with averages and momentum that hold earlier learning rates:
        a tensor whose learning rate is multiplied steps as if that of all tensors were scheduled.

        Args:
            job: The same job, which nothing is attached to, before its first step.
            tensor: The tensor's place among the model's parameters.
            multipliers: What the learning rate is multiplied by in each step.

        Returns:
            The largest of its steps' distances, relative to the step.
        """
        worst = 0.0
        earlier = 1.0
        for number, ((moves, gradients), now) in enumerate(
            zip(self._steps, multipliers, strict=True)
        ):
            before = job.weights()
            _multiply_learning_rates(job.optimizer, now / earlier)
            earlier = now
            job.step(number, gradients)
            expected = _moves(job, before)[tensor].double()
            rounding = _ROUNDING * float(before[tensor].double().norm())
            distance = max(float((moves[tensor].double() - expected).norm()) - rounding, 0.0)
            size = float(expected.norm())
            worst = max(worst, distance / size if size else float("inf") if distance else 0.0)
        return worst

    def _deviation(self, oracle: _Oracle, tensor: int, multiplier: float) -> float:
        move, plain = self._moves[tensor].double(), oracle.moves[tensor].double()
        size = float(plain.norm())
        if oracle.still is not None:
            still = oracle.still[tensor].double()
            move, plain = move - still, plain - still
            if float(plain.norm()) < _MIN_DEPENDENT * size:
                return float("inf")
        rounding = _ROUNDING * float(self._before[tensor].double().norm())
        distance = max(float((move - multiplier * plain).norm()) - rounding, 0.0)
        if not distance:
            return 0.0
        expected = multiplier * float(plain.norm())
        return distance / expected if expected else float("inf")


def _moves(job: Job, before: Sequence[Tensor]) -> _Moves:
    return [after - start for after, start in zip(job.weights(), before, strict=True)]


def _multiply_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for one in with_held(optimizer):
        for group in one.param_groups:
            if "lr" in group:  # groups of wrappers may have none
                group["lr"] = group["lr"] * factor
