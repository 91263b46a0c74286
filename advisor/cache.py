"""Profiles in memory: what was resolved once keeps answering while the store is away."""

from __future__ import annotations

import structlog
from cachetools import LRUCache

from advisor.advice import LoadedProfile, Resolved
from advisor.errors import NotFoundError, StoreUnavailableError
from advisor.names import ProfileReference
from advisor.policy import Reference
from advisor.profiles import VersionInfo
from advisor.store.profiles import ProfileStore

_log = structlog.get_logger()


class CachedProfiles:
    """Resolves names in the store, and contents, which never change, in memory first.

    Args:
        store: The store.
        size: Most versions, and most names, kept in memory.
    """

    def __init__(self, store: ProfileStore, *, size: int) -> None:
        self._store = store
        self._loaded: LRUCache[tuple[str, int, str], LoadedProfile] = LRUCache(size)
        self._names: LRUCache[ProfileReference, VersionInfo] = LRUCache(size)

    async def resolve(self, reference: ProfileReference) -> Resolved:
        """Return the version that a reference names.

        Raises:
            StoreUnavailableError: The store is away and this name was not resolved before.
            NotFoundError: There is no such profile, version or alias.
        """
        try:
            info = await self._store.resolve(reference)
        except StoreUnavailableError:
            known = self._names.get(reference)
            loaded = self._loaded.get(_key(known)) if known else None
            if loaded is None:
                raise
            _log.warning("answering from memory, the store is away", profile=str(reference))
            return Resolved(loaded, stale=True)
        except NotFoundError:
            self._names.pop(
                reference, None
            )  # what is gone must not come back while the store is away
            raise
        self._names[reference] = info
        loaded = self._loaded.get(_key(info))
        if loaded is None:
            content = await self._store.content(info)
            profile = content.profile()
            loaded = LoadedProfile(info, profile, Reference(profile), content.header.provenance)
            self._loaded[_key(info)] = loaded
        return Resolved(loaded)


def _key(info: VersionInfo) -> tuple[str, int, str]:
    return str(info.name), info.version, info.digest
