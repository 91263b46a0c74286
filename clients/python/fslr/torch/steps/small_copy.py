"""A small copy of an optimizer: it steps small tensors in place of the real ones."""

from __future__ import annotations

import copy
import itertools
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fslr.torch.optimizers import parameters_of, with_held

_SIDE = 4  # largest dimension of the small tensors
_MAX_OF_A_KIND = 3  # tensors with gradients, of those with the same group and number of dimensions
_WEIGHT, _GRADIENT = 1e-3, 1e-2  # sizes of the small tensors' entries
_CURVATURE = 10.0  # of the gradients within a step
_GRADIENT_FACTORS = (1.0, 4.0, 0.25)  # so that an average over a group is none over a part of it
_LEARNING_RATE = 1e-3  # where the present one is 0, as at the start of a warm-up
_MAX_ENTRIES = 1 << 20  # of a tensor in the optimizer's attributes


class SmallCopy:
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
        originals = trained_by(optimizer)
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
            with suppress(AttributeError):  # a wrapper's, around an optimizer without modes
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
        gradients = [
            self._numbers(parameter, _GRADIENT * factor)
            for parameter, factor in zip(self.parameters, itertools.cycle(_GRADIENT_FACTORS))
        ]

        evaluated_at: list[Tensor] = []

        def backward() -> Tensor:
            if not evaluated_at:
                evaluated_at.extend(self.weights())
            for parameter, gradient, first in zip(
                self.parameters, gradients, evaluated_at, strict=True
            ):
                steps = parameter.requires_grad and id(parameter) in self._stepped
                # A step that asks again at other weights gets a different gradient.
                change = _CURVATURE * (parameter.detach() - first)
                parameter.grad = (gradient + change).to(gradient.dtype) if steps else None
            return torch.ones((), device=self.parameters[0].device)

        if self._needs_closure:
            self.optimizer.step(backward)  # type: ignore[arg-type]
        else:
            backward()
            self.optimizer.step()


def trained_by(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors in the groups of an optimizer and of all that it holds."""
    found: dict[int, Tensor] = {}
    for one in with_held(optimizer):
        found.update((id(parameter), parameter) for parameter in parameters_of(one))
    return list(found.values())


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
