"""Reads the version that a name stands for while versions are registered and deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from advisor.errors import VersionNotFoundError
from advisor.registry.resource_names import ProfileReference

_ATTEMPTS = 5

_Found = TypeVar("_Found")
_Content = TypeVar("_Content")


async def resolve_and_read(
    reference: ProfileReference,
    resolve: Callable[[], Awaitable[_Found]],
    read: Callable[[_Found], Awaitable[_Content]],
) -> tuple[_Found, _Content]:
    """Resolve a name and read what it names, again if that was deleted in between.

    Args:
        reference: The name. An alias or the latest version may name a different version after a
            deletion, so it is resolved up to 5 times; a version number is resolved once.
        resolve: Resolves the name.
        read: Reads what was found.

    Raises:
        VersionNotFoundError: The named version was deleted.
    """
    attempts = 0
    while True:
        attempts += 1
        found = await resolve()
        try:
            return found, await read(found)
        except VersionNotFoundError:
            if reference.version is not None or attempts == _ATTEMPTS:
                raise
