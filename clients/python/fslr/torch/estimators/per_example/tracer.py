"""Follows parameters through a forward pass to where they act on the examples.

Under a :class:`LocalMapTracer` a model runs as ever, and each function call that a parameter takes
part in is noted. As long as a parameter meets nothing but constants (``W.t()``, a cast, a position
embedding's lookup), its change is followed through the function (:mod:`.local_maps`).
Where it meets the examples, the result's change is computed and kept as a :class:`Use`, with the
place in the autograd graph at which a backward pass will deliver the result's cotangent.

A parameter that goes where its change cannot be followed (a recurrent layer's kernel, an unknown
function, one that changes it in place) is *unfollowed*: its gradient itself has to be asked for.
What no Python function shows (custom autograd functions, scripted code) is not seen here at all;
the check for missed parameters in :mod:`fslr.torch.estimators.per_example.route` finds it.
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
    as_measured,
    linear_function,
)
from fslr.torch.model.batch import Batch
from fslr.torch.model.function_modes import opened

_Change = Callable[[], Tensor]
"""Computes a tensor's change when it is needed; nothing the size of the weights is kept."""

UseKey = tuple[int, int, Callable[..., Any], int]


@dataclass(frozen=True, slots=True)
class Use:
    """One place where groups act on the examples.

    Attributes:
        key: Tells the uses of one forward pass apart, and is the same in the next pass: the first
            group that acts here, which of its uses this is in order, through which function, and
            the result's number of dimensions. (A lookup of positions that only looks like one of
            examples, because the sizes are equal by chance, is another use.)
        edge: Where the cotangent of the result arrives.
        shape: The result's shape.
        parts: Group index and change of the result (of a shape that broadcasts over it), a pair for
            each group that acts here.
    """

    key: UseKey
    edge: GradientEdge
    shape: torch.Size
    parts: list[tuple[int, Tensor]]


@dataclass(slots=True)
class _Followed:
    """A tensor that is made of parameters and constants alone, with its change by group.

    It holds the tensor, so that its ``id`` is not given to another one.
    """

    tensor: Tensor
    changes: dict[int, _Change]


class LocalMapTracer(TorchFunctionMode):
    """Notes where each group acts; used around one call of the model.

    Args:
        update_of: Gives the unit update of a group by its index.
        batch: The examples.
        ignored: Groups whose uses are of no interest.

    Attributes:
        unfollowed: Groups whose uses are not complete.
    """

    def __init__(
        self,
        update_of: Callable[[int], Tensor],
        batch: Batch,
        *,
        ignored: Collection[int] = (),
    ) -> None:
        super().__init__()
        self._uses: list[Use] = []
        self.unfollowed: set[int] = set()
        self._update_of = update_of
        self._examples = batch.examples
        self._flattened = batch.flattened_sizes()
        self._ignored = ignored
        self._followed: dict[int, _Followed] = {}
        self._count: dict[int, int] = {}

    def follow(self, index: int, parameter: Tensor) -> None:
        """Follow a parameter, from now on, as the one of a group."""
        if index not in self._ignored:
            # Not a method of this object: in a ring of references, tensors would stay alive.
            self._followed[id(parameter)] = _Followed(
                parameter, {index: partial(self._update_of, index)}
            )

    def followed_uses(self) -> list[Use]:
        """Return the uses, without the parts of groups that could not be followed everywhere."""
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
        """Run a function as it is, and note what it does with followed tensors."""
        kwargs = kwargs or {}
        involved = list(self._involved(args, kwargs))
        if not involved:
            return func(*args, **kwargs)
        inside = opened(func)
        if inside is not None:
            with self:
                return inside(*args, **kwargs)
        args, kwargs = as_measured(func, args, kwargs)
        if func is functional.scaled_dot_product_attention:
            args, kwargs = self._with_own_mask(func, args, kwargs)
            involved = list(self._involved(args, kwargs))
        result = func(*args, **kwargs)
        if involved and any(t.requires_grad for t in _tensors_in(result)):
            self._note(func, args, kwargs, result, involved)
        return result

    def _with_own_mask(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give each example an attention mask of its own, if the mask is a followed one.

        The mask (a bias by relative position) is the same for all examples, and attention is not
        linear in it; but at a copy for each example the cotangent arrives example by example.
        """
        names = ("query", "key", "value", "attn_mask")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        query, mask = given["query"], given.get("attn_mask")
        followed = self._followed.get(id(mask))
        if followed is None or not isinstance(mask, Tensor) or not mask.requires_grad:
            return args, kwargs
        own = mask.expand(*query.shape[:-2], *mask.shape[-2:])
        self._use(func, own, [(index, change) for index, change in followed.changes.items()])
        if "attn_mask" in kwargs:
            return args, {**kwargs, "attn_mask": own}
        return (*args[:3], own, *args[4:]), kwargs

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

    def _note(
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
            self._use(func, result, changes)
        else:
            self._follow_results(func, result, changes)

    def _meets_examples(self, call: Call) -> bool:
        """Return whether an argument that is not followed may differ from example to example."""
        return any(
            id(tensor) not in self._followed
            and (
                tensor.requires_grad
                or self._examples in tensor.shape
                or (tensor.dim() > 0 and tensor.shape[0] in self._flattened)
            )
            for _, tensor in _tensors_of(call)
        )

    def _use(
        self,
        func: Callable[..., Any],
        result: Any,
        changes: list[tuple[int, Callable[[], Any]]],
    ) -> None:
        parts: list[tuple[int, Tensor]] = []
        for index, change in changes:
            if index in self.unfollowed:
                continue
            part = _evaluated(change)
            if isinstance(part, Tensor) and isinstance(result, Tensor):
                parts.append((index, part))
            else:
                self.unfollowed.add(index)
        if parts:
            first = parts[0][0]
            self._count[first] = self._count.get(first, -1) + 1
            # The edge, not the tensor: it stays right if the result is changed in place later.
            edge = get_gradient_edge(result)
            key = first, self._count[first], func, result.dim()
            self._uses.append(Use(key, edge, result.shape, parts))

    def _follow_results(
        self,
        func: Callable[..., Any],
        result: Any,
        changes: list[tuple[int, Callable[[], Any]]],
    ) -> None:
        in_place = getattr(func, "__name__", "").endswith("_")  # the others may hand through
        results = [result] if isinstance(result, Tensor) else list(result)
        merged: dict[int, list[Callable[[], Any]]] = {}
        for index, change in changes:
            merged.setdefault(index, []).append(change)
        for place, tensor in enumerate(results):
            own = {
                index: _Sum(parts, None if tensor is result else place, tensor.shape)
                for index, parts in merged.items()
            }
            known = self._followed.get(id(tensor))
            if known is None:
                self._followed[id(tensor)] = _Followed(tensor, dict(own))
            elif in_place:  # what was followed is no longer true
                self.unfollowed |= set(known.changes) | set(own)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A change sent through a local map, when it is needed."""

    local_map: LocalMap
    call: Call
    place: Place
    change: _Change

    def __call__(self) -> Any:
        return self.local_map(self.call, self.place, self.change())


@dataclass(frozen=True, slots=True)
class _Sum:
    """The change of one result, added up over the arguments through which a group acts on it."""

    parts: list[Callable[[], Any]]
    place: int | None  # in a tuple of results
    shape: torch.Size

    def __call__(self) -> Tensor:
        total: Tensor | None = None
        for part in self.parts:
            value = part()
            if value is NotImplemented:
                raise NotFollowedError
            change: Tensor = value if self.place is None else value[self.place]
            total = change if total is None else total + change
        assert total is not None  # noqa: S101 - there is no sum without parts
        return total.expand(self.shape)


class NotFollowedError(Exception):
    """A change cannot be followed through a function; caught where the change is needed."""


@torch.no_grad()
def _evaluated(change: Callable[[], Any]) -> Any:
    """Return a change, or None where it cannot be computed by a local map.

    Raises:
        OutOfMemoryError: There is no room for it.
    """
    try:
        return change()
    except torch.OutOfMemoryError:
        raise
    except (NotFollowedError, TypeError, KeyError, ValueError, RuntimeError):
        return None  # arguments that the table does not foresee: the slow route is always right


def _tensors_of(call: Call) -> Iterator[tuple[Place, Tensor]]:
    """Yield the tensors among a call's arguments and in its lists, each with its place."""
    for name, argument in call.arguments.items():
        if isinstance(argument, Tensor):
            yield name, argument
        elif isinstance(argument, (list, tuple)):
            for i, item in enumerate(argument):
                if isinstance(item, Tensor):
                    yield (name, i), item


def _tensors_in(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        yield from (item for item in result if isinstance(item, Tensor))
