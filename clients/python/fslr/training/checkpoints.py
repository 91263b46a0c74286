"""What all state dicts have in common: their header, and that they load wholly or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Protocol

from fslr.errors import AttachError

_VERSION = 1


class Stateful(Protocol):
    """Something that a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


def header(kind: str, groups: Sequence[str]) -> dict[str, Any]:
    """Return the entries that say what a state dict belongs to.

    Args:
        kind: What the state is of, in words.
        groups: Names of the model's groups, in layout order.
    """
    return {"version": _VERSION, "kind": kind, "groups": list(groups)}


def check_header(state: Mapping[str, Any], kind: str, groups: Sequence[str]) -> None:
    """Refuse a state dict that belongs to something else.

    Args:
        state: The state dict.
        kind: What it should be of.
        groups: The groups that it should be of.

    Raises:
        AttachError: The version, the kind or the groups differ.
    """
    version = state.get("version")
    if version != _VERSION:
        raise AttachError(
            f"the checkpoint has format version {version}, and this version of fslr reads "
            f"{_VERSION}; load it with the version of fslr that saved it"
        )
    if state["kind"] != kind:
        raise AttachError(
            f"the checkpoint belongs to {state['kind']}, not to {kind}; load one that was "
            f"saved from {kind}"
        )
    names = list(groups)
    if list(state["groups"]) != names:
        pairs = zip_longest(state["groups"], names)
        there, here = next((there, here) for there, here in pairs if there != here)
        raise AttachError(
            f"the checkpoint belongs to a model with different groups ({len(state['groups'])} "
            f"there, {len(names)} here; first difference: {_quoted(there)} there, {_quoted(here)} "
            "here); load the one that belongs to this model"
        )


def _quoted(name: str | None) -> str:
    return "none" if name is None else repr(name)


def load_all(parts: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    """Load the state of several parts; if one of them fails, none is changed.

    Args:
        parts: The parts by name.
        state: Their states by name.

    Raises:
        AttachError: A part's state is missing, or belongs to something else.
    """
    missing = sorted(parts.keys() - state.keys())
    if missing:
        raise AttachError(
            f"the checkpoint has no entry {missing[0]!r}; pass what state_dict() returned"
        )
    before = {name: part.state_dict() for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except BaseException:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        raise
