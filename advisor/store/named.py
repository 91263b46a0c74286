"""Reads the version that a name stands for while versions come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from advisor.errors import VersionNotFoundError
from advisor.registry.resource_names import ProfileReference

_ATTEMPTS = 5

_Found = TypeVar("_Found")
_Content = TypeVar("_Content")


async def read_named(
    reference: ProfileReference,
    look: Callable[[], Awaitable[_Found]],
    read: Callable[[_Found], Awaitable[_Content]],
) -> tuple[_Found, _Content]:
    """Look a name up and read what it names; anew where that was deleted in between.

    Args:
        reference: The name. An alias or the latest names another version after a deletion; a number
            does not, so it is looked up once.
        look: Looks the name up.
        read: Reads what was found.

    Raises:
        VersionNotFoundError: The version that is named was deleted.
    """
    attempts = 0
    while True:
        attempts += 1
        found = await look()
        try:
            return found, await read(found)
        except VersionNotFoundError:
            if reference.version is not None or attempts == _ATTEMPTS:
                raise
