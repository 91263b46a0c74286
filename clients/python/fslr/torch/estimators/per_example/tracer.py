"""Follows parameters through a forward pass to the functions where they act on the examples.

Under a :class:`LocalMapTracer` a model runs as usual, and each function call that involves a
parameter is recorded. While a parameter is combined only with constants (``W.t()``, a cast, the
lookup in a position embedding), its change is followed through the function (:mod:`.local_maps`).
Where it is combined with the examples, the change of the result is computed and kept as a
:class:`Use`, with the edge of the autograd graph at which a backward pass delivers the cotangent of
the result.

A parameter is *unfollowed* if it reaches a function through which its change cannot be followed
(the kernel of a recurrent layer, an unknown function, an in-place change): its gradient has to be
computed instead. Code that calls no Python function (custom autograd functions, scripted code) is
invisible here; the check for missed parameters in
:mod:`fslr.torch.estimators.per_example.route` detects it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fslr.torch.estimators.per_example.local_maps import (
    Call,
    LocalMap,
    Place,
    linear_function,
)
from fslr.torch.model.batch import Batch
from fslr.torch.model.function_modes import opened, without_gradient_options

_Change = Callable[[], Tensor]
"""Computes a tensor's change on demand, so that nothing of the weights' size is kept."""

UseKey = tuple[int, int, Callable[..., Any], int]


@dataclass(frozen=True, slots=True)
class Use:
    """One place where groups act on the examples.

    Attributes:
        key: Identifies the use within a forward pass, and is the same in the next pass: the first
            group that acts here, the position among that group's uses, the function, and the
            number of dimensions of the result. (The dimensions distinguish a lookup of positions
            that looks like a lookup of examples because the sizes are equal by chance.)
        edge: The edge of the autograd graph at which the cotangent of the result arrives.
        shape: The shape of the result.
        parts: For each group that acts here, its index and the change of the result, of a shape
            that broadcasts to that of the result.
    """

    key: UseKey
    edge: GradientEdge
    shape: torch.Size
    parts: list[tuple[int, Tensor]]


@dataclass(slots=True)
class _Followed:
    """A tensor computed only from parameters and constants, with its change by group.

    It keeps the tensor alive, so that no other tensor gets its ``id``.
    """

    tensor: Tensor
    changes: dict[int, _Change]


class LocalMapTracer(TorchFunctionMode):
    """Records where each group acts; used around one call of the model.

    Args:
        unit_update: Returns the unit update of a group by the group's index.
        batch: The examples.
        ignored: Groups that are not followed.

    Attributes:
        unfollowed: Groups that could not be followed everywhere.
    """

    def __init__(
        self,
        unit_update: Callable[[int], Tensor],
        batch: Batch,
        *,
        ignored: Collection[int] = (),
    ) -> None:
        super().__init__()
        self._uses: list[Use] = []
        self.unfollowed: set[int] = set()
        self._unit_update = unit_update
        self._examples = batch.examples
        self._flattened = batch.flattened_sizes()
        self._ignored = ignored
        self._followed: dict[int, _Followed] = {}
        self._count: dict[int, int] = {}

    def follow(self, index: int, parameter: Tensor) -> None:
        """Start to follow a parameter as the one of the given group."""
        if index not in self._ignored:
            # No bound method of this tracer: a reference cycle would keep tensors alive.
            self._followed[id(parameter)] = _Followed(
                parameter, {index: partial(self._unit_update, index)}
            )

    def followed_uses(self) -> list[Use]:
        """Return the uses, without the parts of unfollowed groups."""
        kept = []
        for use in self._uses:
            parts = [part for part in use.parts if part[0] not in self.unfollowed]
            if parts:
                kept.append(Use(use.key, use.edge, use.shape, parts))
        return kept

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function, and record what it does with followed tensors."""
        kwargs = kwargs or {}
        involved = list(self._involved(args, kwargs))
        if not involved:
            return func(*args, **kwargs)
        inner = opened(func)
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        args, kwargs = without_gradient_options(func, args, kwargs)
        if func is functional.scaled_dot_product_attention:
            args, kwargs = self._with_mask_per_example(func, args, kwargs)
            involved = list(self._involved(args, kwargs))
        result = func(*args, **kwargs)
        if involved and any(t.requires_grad for t in _tensors_in(result)):
            self._record(func, args, kwargs, result, involved)
        return result

    def _with_mask_per_example(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Expand an attention mask that is followed, so that each example has its own.

        The mask (a bias by relative position) is shared by all examples, and attention is not
        linear in it. But at the expanded mask, the cotangent arrives separately for each example.
        """
        names = ("query", "key", "value", "attn_mask")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        query, mask = given["query"], given.get("attn_mask")
        followed = self._followed.get(id(mask))
        if followed is None or not isinstance(mask, Tensor) or not mask.requires_grad:
            return args, kwargs
        expanded = mask.expand(*query.shape[:-2], *mask.shape[-2:])
        self._add_use(
            func, expanded, [(index, change) for index, change in followed.changes.items()]
        )
        if "attn_mask" in kwargs:
            return args, {**kwargs, "attn_mask": expanded}
        return (*args[:3], expanded, *args[4:]), kwargs

    def _involved(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[_Followed]:
        """Yield the followed tensors among a call's arguments."""
        followed = self._followed
        for argument in (*args, *kwargs.values()):
            if id(argument) in followed:
                yield followed[id(argument)]
            elif type(argument) in {list, tuple}:
                for item in argument:
                    if id(item) in followed:
                        yield followed[id(item)]

    def _record(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        involved: list[_Followed],
    ) -> None:
        known = linear_function(func)
        call = None if known is None else known.bind(func, args, kwargs)
        changes: list[tuple[int, Callable[[], Any]]] = []
        if known is not None and call is not None:
            for place, tensor in _tensors_of(call):
                source = self._followed.get(id(tensor))
                for index, change in () if source is None else source.changes.items():
                    changes.append((index, _Mapped(known.local_map, call, place, change)))
        expected = {index for followed in involved for index in followed.changes}
        if call is None or expected - {index for index, _ in changes}:
            self.unfollowed |= expected
        elif self._meets_examples(call):
            self._add_use(func, result, changes)
        else:
            self._follow_results(func, result, changes)

    def _meets_examples(self, call: Call) -> bool:
        """Return whether an argument that is not followed may depend on the example."""
        return any(
            id(tensor) not in self._followed
            and (
                tensor.requires_grad
                or self._examples in tensor.shape
                or (tensor.dim() > 0 and tensor.shape[0] in self._flattened)
            )
            for _, tensor in _tensors_of(call)
        )

    def _add_use(
        self,
        func: Callable[..., Any],
        result: Any,
        changes: list[tuple[int, Callable[[], Any]]],
    ) -> None:
        parts: list[tuple[int, Tensor]] = []
        for index, change in changes:
            if index in self.unfollowed:
                continue
            part = _evaluate(change)
            if isinstance(part, Tensor) and _has_rows(result):
                parts.append((index, part))
            else:
                self.unfollowed.add(index)
        if parts:
            first = parts[0][0]
            self._count[first] = self._count.get(first, -1) + 1
            # The edge, not the tensor: it stays valid if the result is changed in place later.
            edge = get_gradient_edge(result)
            key = first, self._count[first], func, result.dim()
            self._uses.append(Use(key, edge, result.shape, parts))

    def _follow_results(
        self,
        func: Callable[..., Any],
        result: Any,
        changes: list[tuple[int, Callable[[], Any]]],
    ) -> None:
        # Other functions may return an argument unchanged.
        in_place = getattr(func, "__name__", "").endswith("_")
        results = [result] if isinstance(result, Tensor) else list(result)
        merged: dict[int, list[Callable[[], Any]]] = {}
        for index, change in changes:
            merged.setdefault(index, []).append(change)
        for position, tensor in enumerate(results):
            own = {
                index: _Sum(parts, None if tensor is result else position, tensor.shape)
                for index, parts in merged.items()
            }
            known = self._followed.get(id(tensor))
            if known is None:
                self._followed[id(tensor)] = _Followed(tensor, dict(own))
            elif in_place:  # the change that was followed is no longer valid
                self.unfollowed |= set(known.changes) | set(own)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A change mapped through a local map, on demand."""

    local_map: LocalMap
    call: Call
    place: Place
    change: _Change

    def __call__(self) -> Any:
        return self.local_map(self.call, self.place, self.change())


@dataclass(frozen=True, slots=True)
class _Sum:
    """The change of a result, summed over the arguments through which a group acts on it."""

    parts: list[Callable[[], Any]]
    position: int | None  # in a tuple of results; None: the result is a tensor
    shape: torch.Size

    def __call__(self) -> Tensor:
        total: Tensor | None = None
        for part in self.parts:
            value = part()
            if value is NotImplemented:
                raise NotFollowedError
            change: Tensor = value if self.position is None else value[self.position]
            total = change if total is None else total + change
        assert total is not None  # noqa: S101 - parts is never empty
        return total.expand(self.shape)


class NotFollowedError(Exception):
    """A change cannot be followed through a function; caught where the change is evaluated."""


@torch.no_grad()
def _evaluate(change: Callable[[], Any]) -> Any:
    """Return a change, or None if no local map can compute it.

    Raises:
        OutOfMemoryError: The change does not fit into memory.
    """
    try:
        return change()
    except torch.OutOfMemoryError:
        raise
    except (NotFollowedError, TypeError, KeyError, ValueError, RuntimeError):
        return None  # arguments that the table does not cover; the gradient is used instead


def _tensors_of(call: Call) -> Iterator[tuple[Place, Tensor]]:
    """Yield the tensors among a call's arguments and in its lists, with their places."""
    for name, argument in call.arguments.items():
        if isinstance(argument, Tensor):
            yield name, argument
        elif isinstance(argument, (list, tuple)):
            for i, item in enumerate(argument):
                if isinstance(item, Tensor):
                    yield (name, i), item


def _has_rows(result: Any) -> bool:
    """Return whether a result is a plain tensor, neither sparse nor nested."""
    return isinstance(result, Tensor) and result.layout is torch.strided and not result.is_nested


def _tensors_in(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        yield from (item for item in result if isinstance(item, Tensor))
