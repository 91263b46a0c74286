"""Tries out how an optimizer's steps follow multipliers, on a small copy of it.

Many optimizers are not linear in their learning rate: they compute their own, want one for all
groups, or write it. Others keep weights of their own, from which a scaled update would be undone.
Neither can be seen from outside. So a copy of the optimizer steps a few small tensors in place of
the real ones, with and without multipliers. The copy has the optimizer's class, settings, state and
attributes, and the optimizer itself is not touched.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fslr.torch.model.isolation import preserved_generators
from fslr.torch.steps.small_copy import SmallCopy, trained_by
from fslr.torch.steps.step_hooks import StepHooks
from fslr.torch.steps.step_scaler import StepScaler

_STEPS = 3
_MULTIPLIERS = (0.5, 2.0, 1.0, 0.25)  # of one tensor after the other
_LATER_MULTIPLIERS = (2.0, 0.5, 4.0, 1.0)
_TOLERANCE = 0.05  # of a ratio
_MAX_RESIDUAL = 0.1
_NEARLY_ZERO = 1e-6  # a multiplier
_MIN_POWER = 0.5  # of a multiplier, for it to have an effect at all
_MIN_DEPENDENT = 0.02  # part of a step that depends on the learning rate
_NOT_DEPENDENT = 1e-3  # the same of one tensor, below which it is rounding
_MAX_STILL = 8  # steps that may move nothing at first; a rectified Adam makes 5
_MIN_CHANGE = 0.01  # of the weights
_MIN_LASTING = 0.8  # part of a change of the weights that must last over a step


_Moves = Sequence[Sequence[Tensor]]
"""How far each step moved each tensor."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found out about an optimizer.

    Attributes:
        learning_rates: Why multipliers cannot act on its learning rates; empty: they can.
        updates: Why multipliers cannot act on its updates; empty: they can, or it is not known.
        was_possible: Whether the trial could be made at all.
        have_no_effect: Whether multipliers on its learning rates do not even roughly scale its
            steps. Schedule-free optimizers in training follow roughly, and no other way is better.
    """

    learning_rates: str
    updates: str
    was_possible: bool = True
    have_no_effect: bool = False


def try_out(optimizer: torch.optim.Optimizer, *, is_training: bool = False) -> Trial:
    """Return how the steps of an optimizer follow multipliers.

    Args:
        optimizer: The optimizer, as its user passes it.
        is_training: Whether it has stepped with multipliers before. What its momentum and averages
            hold from then moves the weights at any learning rate, so only what depends on the
            learning rate is looked at.
    """
    parameters = trained_by(optimizer)
    with _undisturbed(parameters):
        try:
            plain = _moves(optimizer, [])
        except Exception as error:  # noqa: BLE001 - it may be any code
            reason = f"it could not be tried out ({type(error).__name__}: {error})"
            return Trial(reason, "", was_possible=False)
        if not any(bool(move.any()) for moves in plain for move in moves):
            return Trial("it moved nothing when it was tried out", "", was_possible=False)
        try:
            reason, without = _follows_learning_rates(optimizer, plain, is_training=is_training)
        except Exception as error:  # noqa: BLE001 - it may be any code
            reason = (
                f"its step fails with different learning rates ({type(error).__name__}: {error})"
            )
            without = True
        return Trial(reason, _lasting(optimizer), have_no_effect=without)


def _follows_learning_rates(
    optimizer: torch.optim.Optimizer, plain: _Moves, *, is_training: bool
) -> tuple[str, bool]:
    """Return why the steps do not follow multipliers, and whether these have no effect.

    The reason is empty if they do.
    """
    count = len(plain[0])
    first = [_MULTIPLIERS[i % len(_MULTIPLIERS)] for i in range(count)]
    later = [_LATER_MULTIPLIERS[i % len(_LATER_MULTIPLIERS)] for i in range(count)]
    scaled = _moves(optimizer, [first] * _STEPS + [later] * _STEPS)
    if is_training:
        still = _moves(optimizer, [[_NEARLY_ZERO] * count] * (2 * _STEPS))
        moved, plain, scaled = plain, _without(plain, still), _without(scaled, still)
        if _size(plain) < _MIN_DEPENDENT * _size(moved):
            return "its step does not depend on them", True
        if _has_independent(moved, plain):
            return "the step of some of its tensors does not depend on them", True
    reason = _deviates(scaled, plain, first) or _stays(scaled[-1], plain[-1], first, later)
    return reason, bool(reason) and _are_nearly_plain(scaled[0], plain[0], first)


def _has_independent(moved: _Moves, dependent: _Moves) -> bool:
    """Return whether a tensor moves, and nothing of that depends on the learning rate.

    Args:
        moved: How far each step moves each tensor.
        dependent: What of it depends on the learning rate.
    """
    return any(
        _size([of_tensor]) < _NOT_DEPENDENT * _size([moves])
        for moves, of_tensor in zip(
            zip(*moved, strict=True), zip(*dependent, strict=True), strict=True
        )
    )


def _deviates(scaled: _Moves, plain: _Moves, multipliers: Sequence[float]) -> str:
    """Return where first steps are not plain ones times their multipliers; empty: nowhere."""
    for moves, plain_moves in zip(scaled[:_STEPS], plain, strict=False):
        for move, of_plain, multiplier in zip(moves, plain_moves, multipliers, strict=True):
            ratio, residual = _compared(move, of_plain, multiplier)
            if abs(ratio / multiplier - 1) > _TOLERANCE or residual > _MAX_RESIDUAL:
                return f"with the multiplier {multiplier:g}, its step is {ratio:.3g} times as large"
    return ""


def _are_nearly_plain(
    moves: Sequence[Tensor], plain: Sequence[Tensor], multipliers: Sequence[float]
) -> bool:
    """Return whether a move is nearer to the plain one than to that times its multiplier."""
    for move, of_plain, multiplier in zip(moves, plain, multipliers, strict=True):
        ratio, _ = _compared(move, of_plain, multiplier)
        if multiplier != 1.0 and not (ratio > 0 and math.log(ratio, multiplier) > _MIN_POWER):
            return True
    return False


def _stays(
    scaled: Sequence[Tensor],
    plain: Sequence[Tensor],
    first: Sequence[float],
    later: Sequence[float],
) -> str:
    """Return where the step after a change still has the multiplier before it; empty: nowhere."""
    for move, of_plain, before, multiplier in zip(scaled, plain, first, later, strict=True):
        # Momentum and averages may hold earlier learning rates for some steps.
        ratio, _ = _compared(move, of_plain, multiplier)
        if not ratio > 0 or abs(math.log(ratio / multiplier)) > abs(math.log(ratio / before)):
            return (
                f"its step does not follow a multiplier that changes from {before:g} to "
                f"{multiplier:g}: it is {ratio:.3g} times as large"
            )
    return ""


def _without(moves: _Moves, others: _Moves) -> list[list[Tensor]]:
    """Return the differences of moves."""
    return [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(moves, others, strict=True)]


def _size(moves: _Moves) -> float:
    return math.sqrt(sum(float(_flat(move).square().sum()) for step in moves for move in step))


def _compared(move: Tensor, plain: Tensor, expected: float) -> tuple[float, float]:
    """Return how many times a move is another one, and what is left relative to that."""
    move, plain = _flat(move), _flat(plain)
    size = plain.dot(plain)
    if not size:
        return (float("inf") if move.any() else expected), 0.0
    ratio = float(move.dot(plain) / size)
    rest = float(torch.linalg.vector_norm(move - ratio * plain) / size.sqrt())
    return ratio, rest / abs(ratio) if ratio else 0.0


def _flat(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.flatten().to("cpu", torch.float64)


def _moves(
    optimizer: torch.optim.Optimizer, multipliers: Sequence[Sequence[float]]
) -> list[list[Tensor]]:
    """Return how far each step of a copy moves each small tensor.

    Args:
        optimizer: The optimizer.
        multipliers: Those of each step; empty: none.
    """
    try:
        return _moves_of(SmallCopy(optimizer), multipliers)
    except Exception:  # noqa: BLE001 - it may be any code
        return _moves_of(SmallCopy(optimizer, needs_closure=True), multipliers)


def _moves_of(small: SmallCopy, multipliers: Sequence[Sequence[float]]) -> list[list[Tensor]]:
    scaler = StepScaler(small.optimizer, small.parameters)
    StepHooks([small.optimizer], _NoCycle(), scaler)
    moves: list[list[Tensor]] = []
    for step in range(2 * _STEPS):
        if multipliers:
            scaler.scale(multipliers[step])
        before = small.weights()
        small.step(step)
        moves.append([a - b for a, b in zip(small.weights(), before, strict=True)])
    return moves


def _lasting(optimizer: torch.optim.Optimizer) -> str:
    """Return why a change of the weights between two steps does not last; empty: it does."""
    try:
        changes, differences = _change_and_difference(optimizer)
    except Exception:  # noqa: BLE001 - it may be any code, and scaling needs no assumption on it
        return ""
    for change, difference in zip(changes, differences, strict=True):
        lasting, _ = _compared(difference, change, 1.0)
        least = _MIN_LASTING if change.dtype.itemsize >= 4 else _MIN_LASTING / 2
        if lasting < least:
            return (
                f"its next step takes back {100 * (1 - lasting):.0f} % of a change of the weights, "
                "as one that keeps weights of its own does"
            )
    return ""


def _change_and_difference(
    optimizer: torch.optim.Optimizer,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return how weights are changed after a step, and what of it is left after the next one."""
    ends: list[list[Tensor]] = []
    changes: list[Tensor] = []
    for is_changed in (False, True):
        small = SmallCopy(optimizer, keeps_dtype=True)
        try:
            steps = _until_moved(small)
        except Exception:  # noqa: BLE001 - it may be any code
            small = SmallCopy(optimizer, keeps_dtype=True, needs_closure=True)
            steps = _until_moved(small)
        after = small.weights()
        if is_changed:
            for parameter, start in zip(small.parameters, small.start, strict=True):
                _take_back(parameter, start)
            changes = [c - a for c, a in zip(small.weights(), after, strict=True)]
        small.step(steps)
        ends.append(small.weights())
    return changes, [b - a for a, b in zip(*ends, strict=True)]


@torch.no_grad()
def _take_back(parameter: Tensor, start: Tensor) -> None:
    """Take back half of a move, or so much of it that it is no rounding of the weights."""
    move = parameter - start
    size = torch.linalg.vector_norm(move)
    if size:
        least = _MIN_CHANGE * torch.linalg.vector_norm(start) / size
        parameter.sub_(move * max(0.5, float(least)))


def _until_moved(small: SmallCopy) -> int:
    """Step until something moves, and return the number of steps."""
    for number in range(_MAX_STILL):
        small.step(number)
        if not all(map(torch.equal, small.weights(), small.start)):
            return number + 1
    return _MAX_STILL


class _NoCycle:
    """A step cycle that does nothing."""

    applied: Sequence[float] = ()

    def model_called(self) -> None:
        """Do nothing."""

    def before_step(self, members: Collection[int]) -> None:
        """Do nothing."""

    def after_step(self, members: Collection[int]) -> None:
        """Do nothing."""

    def step_failed(self, error: Exception) -> None:
        """Raise the error."""
        raise error


@contextmanager
def _undisturbed(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Keep generators, and gradients from code that would step the real tensors after all."""
    gradients = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        with (
            warnings.catch_warnings(),
            preserved_generators(parameters),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
