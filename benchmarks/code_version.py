"""Digests of the code that results of trainings depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import advisor
import fslr
from advisor.recipes import recipe_to_fields, shipped_recipe

_CLIENT = ("advisor/v1", "torch", "training")
_SERVICE = ("advising", "local", "policy", "wire")
_RECIPES = ("recipes",)  # apart from the others: most advised trainings follow no recipe
_FIELDS_OF_RECIPE = ("optimizers", "groups")  # without its texts, which change no number


def client_code() -> str:
    """Return the digest of the client's code, on which recorded trainings depend."""
    return _digest(_sources(fslr.__file__, _CLIENT))


def advised_code() -> str:
    """Return the digest of the code of client and service, on which advised trainings depend."""
    return _digest(_sources(fslr.__file__, _CLIENT) + _sources(advisor.__file__, _SERVICE))


def recipe_code(name: str) -> str:
    """Return the digest of what trainings that follow a shipped recipe depend on, too.

    Args:
        name: The recipe's name.

    Raises:
        InvalidValueError: No shipped recipe has this name.
    """
    fields = recipe_to_fields(shipped_recipe(name))
    table = json.dumps({key: fields.get(key) for key in _FIELDS_OF_RECIPE}, sort_keys=True)
    code = _digest(_sources(advisor.__file__, _RECIPES))
    return hashlib.sha256(f"{code} {table}".encode()).hexdigest()


def _sources(package: str | None, folders: Iterable[str]) -> tuple[Path, ...]:
    root = Path(package or "").parent
    return tuple(file for folder in folders for file in sorted((root / folder).rglob("*.py")))


@cache
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
