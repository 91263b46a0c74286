"""Digests of the code that results of trainings depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import advisor
import fslr

_CLIENT = ("advisor/v1", "torch", "training")
_SERVICE = ("advising", "local", "policy", "wire")


def client_code() -> str:
    """Return the digest of the client's code, on which recorded trainings depend."""
    return _digest(_sources(fslr.__file__, _CLIENT))


def advised_code() -> str:
    """Return the digest of the code of client and service, on which advised trainings depend."""
    return _digest(_sources(fslr.__file__, _CLIENT) + _sources(advisor.__file__, _SERVICE))


def _sources(package: str | None, folders: Iterable[str]) -> tuple[Path, ...]:
    root = Path(package or "").parent
    return tuple(file for folder in folders for file in sorted((root / folder).rglob("*.py")))


@cache
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
