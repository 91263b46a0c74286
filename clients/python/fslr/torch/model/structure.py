"""Walks the arguments and results of model calls, which nest tensors in containers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

_MAX_DEPTH = 3  # of objects inside of objects
_MAX_ENTRIES = 256  # of containers inside of objects; a tokenizer holds its vocabulary


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested containers.

    Containers are tuples, lists, mappings, dataclasses, and objects that hold tensors in their
    attributes. One with a changed tensor in it is copied; one that cannot be copied is left alone.

    Args:
        value: A tensor, a container, or anything else, which is returned unchanged.
        function: Applied to the tensors.
    """
    return _map(value, function, _MAX_DEPTH)


def _map(value: Any, function: Callable[[Tensor], Tensor], depth: int) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    try:
        parts = _parts(value, depth)
    except Exception:  # noqa: BLE001 - containers of any kind, with methods of any kind
        return value
    depth -= _is_object(value)
    changed: dict[Any, Any] = {}
    for key, part in parts.items():
        mapped = _map(part, function, depth)
        if mapped is not part:
            changed[key] = mapped
    if not changed:
        return value
    try:
        return _with_parts(value, parts, changed)
    except Exception:  # noqa: BLE001 - containers of any kind, which check what they are given
        return value


def tensors_in(value: Any) -> list[Tensor]:
    """Return every tensor of nested containers, in order; see :func:`map_tensors`."""
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, collect)
    return found


def entries(value: Any) -> dict[Any, Any]:
    """Return the entries of a result or an argument by key, attribute or index."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        named = value._asdict() if hasattr(value, "_asdict") else {}
        return {**dict(enumerate(value)), **named}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return dict(vars(value)) if hasattr(value, "__dict__") else {}


def arguments_by_name(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return a call's arguments by the names that the model's ``forward`` has for them.

    Args:
        model: The model.
        args: The positional arguments.
        kwargs: The keyword arguments.
    """
    try:
        signature = inspect.signature(model.forward)
        bound = signature.bind(*args, **kwargs)
    except (TypeError, ValueError):  # code without a signature, or one that does not say all
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    named = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    return named


def _is_object(value: Any) -> bool:
    """Return whether a value is an object whose attributes may hold tensors."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (Tensor, tuple, list, Mapping))
        and not is_dataclass(value)
        and not callable(value)
    )


def _parts(value: Any, depth: int) -> dict[Any, Any]:
    """Return what a container holds, by key, attribute or index; of other values, nothing.

    Args:
        value: The value.
        depth: How deep to look into objects.
    """
    if isinstance(value, (str, bytes, type)):
        return {}
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value) if hasattr(value, f.name)}
    if depth <= 0 or not _is_object(value):
        return {}
    return {
        name: part
        for name, part in vars(value).items()
        if not isinstance(part, (tuple, list, Mapping)) or len(part) <= _MAX_ENTRIES
    }


def _with_parts(value: Any, parts: dict[Any, Any], changed: dict[Any, Any]) -> Any:
    """Return a copy of a container in which some of its parts are replaced."""
    if isinstance(value, (tuple, list)):
        items = [changed.get(key, part) for key, part in parts.items()]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if type(value) is dict:
        return {**parts, **changed}
    copied = copy.copy(value)
    if isinstance(value, Mapping):
        for key, part in changed.items():
            copied[key] = part
    elif is_dataclass(value):
        for name, part in changed.items():
            object.__setattr__(copied, name, part)  # frozen ones as well
    else:
        vars(copied).update(changed)
    return copied
