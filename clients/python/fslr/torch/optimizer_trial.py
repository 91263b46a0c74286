"""Tries out how an optimizer's steps follow multipliers, on a small copy of it.

Many optimizers are not linear in their learning rate: they compute their own, want one for all
groups, or write it. Others keep weights of their own, from which a scaled update would be undone.
Neither can be seen from outside. So a copy of the optimizer steps a few small tensors in place of
the real ones, with and without multipliers. The copy has the optimizer's class, settings, state and
attributes, and the optimizer itself is not touched.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fslr.torch.hooks import StepHooks
from fslr.torch.model.isolation import preserved_generators
from fslr.torch.optimizers import parameters_of, with_held
from fslr.torch.step_scaler import StepScaler

_SIDE = 4  # largest dimension of the small tensors
_STEPS = 3
_MULTIPLIERS = (0.5, 2.0, 1.0, 0.25)  # of one tensor after the other
_LATER_MULTIPLIERS = (2.0, 0.5, 4.0, 1.0)
_TOLERANCE = 0.05  # of a ratio
_MAX_RESIDUAL = 0.1
_NEARLY_ZERO = 1e-6  # a multiplier
_MIN_DEPENDENT = 0.02  # part of a step that depends on the learning rate
_MIN_LASTING = 0.8  # part of a change of the weights that must last over a step
_WEIGHT, _GRADIENT = 1e-3, 1e-2  # sizes of the small tensors' entries
_LEARNING_RATE = 1e-3  # where the present one is 0, as at the start of a warm-up
_MAX_OF_A_KIND = 3  # tensors with gradients, of those with the same group and number of dimensions
_MAX_ENTRIES = 1 << 20  # of a tensor in the optimizer's attributes


_Moves = Sequence[Sequence[Tensor]]
"""How far each step moved each tensor."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found out about an optimizer.

    Attributes:
        learning_rates: Why multipliers cannot act on its learning rates; empty: they can.
        updates: Why multipliers cannot act on its updates; empty: they can, or it is not known.
        was_possible: Whether the trial could be made at all.
    """

    learning_rates: str
    updates: str
    was_possible: bool = True


def try_out(optimizer: torch.optim.Optimizer, *, is_training: bool = False) -> Trial:
    """Return how the steps of an optimizer follow multipliers.

    Args:
        optimizer: The optimizer, as its user passes it.
        is_training: Whether it has stepped with multipliers before. What its momentum and averages
            hold from then moves the weights at any learning rate, so only what depends on the
            learning rate is looked at.
    """
    parameters = _trained(optimizer)
    with _undisturbed(parameters):
        try:
            plain = _moves(optimizer, [])
        except Exception as error:  # noqa: BLE001 - it may be any code
            reason = f"it could not be tried out ({type(error).__name__}: {error})"
            return Trial(reason, "", was_possible=False)
        if not any(bool(move.any()) for moves in plain for move in moves):
            return Trial("it moved nothing when it was tried out", "", was_possible=False)
        try:
            rates = _follows_learning_rates(optimizer, plain, is_training=is_training)
        except Exception as error:  # noqa: BLE001 - it may be any code
            rates = (
                f"its step fails with different learning rates ({type(error).__name__}: {error})"
            )
        return Trial(rates, _lasting(optimizer))


def _follows_learning_rates(
    optimizer: torch.optim.Optimizer, plain: _Moves, *, is_training: bool
) -> str:
    """Return why the steps do not follow multipliers on the learning rates; empty: they do."""
    count = len(plain[0])
    first = [_MULTIPLIERS[i % len(_MULTIPLIERS)] for i in range(count)]
    later = [_LATER_MULTIPLIERS[i % len(_LATER_MULTIPLIERS)] for i in range(count)]
    scaled = _moves(optimizer, [first] * _STEPS + [later] * _STEPS)
    if is_training:
        still = _moves(optimizer, [[_NEARLY_ZERO] * count] * (2 * _STEPS))
        moved, plain, scaled = plain, _without(plain, still), _without(scaled, still)
        if _size(plain) < _MIN_DEPENDENT * _size(moved):
            return "its step does not depend on them"
    return _deviates(scaled, plain, first) or _stays(scaled[-1], plain[-1], first, later)


def _deviates(scaled: _Moves, plain: _Moves, multipliers: Sequence[float]) -> str:
    """Return where first steps are not plain ones times their multipliers; empty: nowhere."""
    for moves, plain_moves in zip(scaled[:_STEPS], plain, strict=False):
        for move, of_plain, multiplier in zip(moves, plain_moves, multipliers, strict=True):
            ratio, residual = _compared(move, of_plain, multiplier)
            if abs(ratio / multiplier - 1) > _TOLERANCE or residual > _MAX_RESIDUAL:
                return f"with the multiplier {multiplier:g}, its step is {ratio:.3g} times as large"
    return ""


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
        return _moves_of(_SmallCopy(optimizer), multipliers)
    except Exception:  # noqa: BLE001 - it may be any code
        return _moves_of(_SmallCopy(optimizer, needs_closure=True), multipliers)


def _moves_of(small: _SmallCopy, multipliers: Sequence[Sequence[float]]) -> list[list[Tensor]]:
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
    """Return how weights are changed after a first step, and what of it is left after a second."""
    ends: list[list[Tensor]] = []
    changes: list[Tensor] = []
    for is_changed in (False, True):
        small = _SmallCopy(optimizer, keeps_dtype=True)
        try:
            small.step(0)
        except Exception:  # noqa: BLE001 - it may be any code
            small = _SmallCopy(optimizer, keeps_dtype=True, needs_closure=True)
            small.step(0)
        after = small.weights()
        if is_changed:
            for parameter, start in zip(small.parameters, small.start, strict=True):
                with torch.no_grad():
                    parameter.lerp_(start, 0.5)
            changes = [c - a for c, a in zip(small.weights(), after, strict=True)]
        small.step(1)
        ends.append(small.weights())
    return changes, [b - a for a, b in zip(*ends, strict=True)]


class _SmallCopy:
    """A copy of an optimizer, and of all that it holds, that steps small tensors.

    Args:
        optimizer: The optimizer.
        needs_closure: Whether to step with a closure.
        keeps_dtype: Whether 16-bit tensors are copied as such, and not in float32.

    Attributes:
        optimizer: The copy.
        parameters: The small tensors.
        start: Their first values.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        needs_closure: bool = False,
        keeps_dtype: bool = False,
    ) -> None:
        self._needs_closure = needs_closure
        torch.manual_seed(0)  # for optimizers that draw numbers
        self._generator = torch.Generator().manual_seed(0)
        memo: dict[int, Any] = {}
        originals = _trained(optimizer)
        self.parameters = [
            nn.Parameter(self._weight(p, keeps_dtype=keeps_dtype), p.requires_grad)
            for p in originals
        ]
        memo.update((id(p), small) for p, small in zip(originals, self.parameters, strict=True))
        with _NoLargeTensors():
            self.optimizer = _copied(optimizer, memo)
        self._stepped = _of_each_kind(self.optimizer)
        train = getattr(self.optimizer, "train", None)
        if callable(train):  # schedule-free optimizers have modes, as modules have
            train()
        self.start = self.weights()

    def _numbers(self, like: Tensor, size: float, *, keeps_dtype: bool = True) -> Tensor:
        shape = [min(side, _SIDE) for side in like.shape]
        dtype = like.dtype
        if not keeps_dtype and dtype.itemsize < 4:
            dtype = torch.float32
        draws = torch.complex64 if dtype.is_complex else torch.float32
        numbers = torch.randn(shape, generator=self._generator, dtype=draws, device="cpu")
        return (size * numbers).to(like.device, dtype)

    def _weight(self, original: Tensor, *, keeps_dtype: bool) -> Tensor:
        """Return a corner of a tensor; the optimizer's state may depend on its values."""
        numbers = self._numbers(original, _WEIGHT, keeps_dtype=keeps_dtype)
        if type(original.data) is not Tensor:  # sharded, quantized and the like
            return numbers
        corner = original.detach()[tuple(slice(0, side) for side in numbers.shape)]
        return corner.to(numbers.dtype, copy=True).contiguous()

    def weights(self) -> list[Tensor]:
        """Return copies of the small tensors."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def step(self, number: int) -> None:
        """Make a step with the gradients that belong to its number."""
        self._generator.manual_seed(number)
        gradients = [self._numbers(parameter, _GRADIENT) for parameter in self.parameters]

        def backward() -> Tensor:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                steps = parameter.requires_grad and id(parameter) in self._stepped
                parameter.grad = gradient.clone() if steps else None
            return torch.ones((), device=self.parameters[0].device)

        backward()
        if self._needs_closure:
            self.optimizer.step(backward)  # type: ignore[arg-type]
        else:
            self.optimizer.step()


def _of_each_kind(optimizer: torch.optim.Optimizer) -> set[int]:
    """Return the ids of some tensors of each group and number of dimensions."""
    found: set[int] = set()
    for one in with_held(optimizer):
        for group in one.param_groups:
            counts: Counter[int] = Counter()
            for parameter in group["params"]:
                counts[parameter.dim()] += 1
                if counts[parameter.dim()] <= _MAX_OF_A_KIND:
                    found.add(id(parameter))
    return found


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


class _NoLargeTensors(TorchFunctionMode):
    """Refuses to copy large tensors."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__ and args[0].numel() > _MAX_ENTRIES:
            raise ValueError(f"it holds a tensor of {args[0].numel():,} entries")
        return func(*args, **(kwargs or {}))


def _copied(optimizer: torch.optim.Optimizer, memo: dict[int, Any]) -> torch.optim.Optimizer:
    """Return a copy of an optimizer and of all that it holds.

    Args:
        optimizer: The optimizer.
        memo: What takes the place of which object, by id.
    """
    originals = with_held(optimizer)
    for original in originals:
        memo[id(original)] = object.__new__(type(original))
    for original in originals:
        made = memo[id(original)]
        for name, value in vars(original).items():
            if name.startswith("_optimizer_") and name.endswith("_hooks"):
                made.__dict__[name] = OrderedDict()
            elif name == "state":
                made.__dict__[name] = _small_state(original, memo)
            elif name != "step":  # a scheduler has wrapped it, or a compiler
                made.__dict__[name] = copy.deepcopy(value, memo)
    for original in originals:
        for group in memo[id(original)].param_groups:
            if isinstance(group.get("lr"), (int, float)) and not group["lr"] > 0:
                group["lr"] = group.get("initial_lr") or _LEARNING_RATE
    copied: torch.optim.Optimizer = memo[id(optimizer)]
    return copied


def _small_state(original: torch.optim.Optimizer, memo: dict[int, Any]) -> Any:
    state: defaultdict[Any, Any] = defaultdict(dict)
    for key, value in original.state.items():
        if not isinstance(key, Tensor):
            state[key] = copy.deepcopy(value, memo)
        elif id(key) in memo:
            small = _small(value, key, memo[id(key)], memo)
            if small is not None:  # else the copy begins without one
                state[memo[id(key)]] = small
    return state


def _small(value: Any, original: Tensor, small: Tensor, memo: dict[int, Any]) -> Any:
    """Return a small version of something in a tensor's state; None if there is none."""
    if isinstance(value, dict):
        found = {key: _small(entry, original, small, memo) for key, entry in value.items()}
        lacks = any(found[key] is None and value[key] is not None for key in value)
        return None if lacks else found
    if not isinstance(value, Tensor):
        return copy.deepcopy(value, memo)
    if value.numel() == 1:
        return value.detach().clone()
    if value.dim() == original.dim() and all(
        side in {1, of_original}
        for side, of_original in zip(value.shape, original.shape, strict=True)
    ):
        part = value.detach()[tuple(slice(0, side) for side in small.shape)].clone()
        return part.to(small.dtype) if value.dtype == original.dtype else part
    return None


def _trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors in the groups of an optimizer and of all that it holds."""
    found: dict[int, Tensor] = {}
    for one in with_held(optimizer):
        found.update((id(parameter), parameter) for parameter in parameters_of(one))
    return list(found.values())


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
