"""Profiles in memory: what was resolved once keeps answering while the store is away."""

from __future__ import annotations

import structlog
from cachetools import LRUCache

from advisor.advice import LoadedProfile, Resolved
from advisor.errors import NotFoundError, StoreUnavailableError
from advisor.names import PolicyReference, ProfileReference
from advisor.policy import Policy, Reference
from advisor.profiles import VersionInfo
from advisor.store.policies import PolicyStore
from advisor.store.profiles import ProfileStore

_log = structlog.get_logger()


class CachedProfiles:
    """Resolves names in the store, and contents, which never change, in memory first.

    Args:
        store: The store.
        policies: The store of policies.
        size: Most versions, and most names, kept in memory.
    """

    def __init__(self, store: ProfileStore, policies: PolicyStore, *, size: int) -> None:
        self._store = store
        self._policy_store = policies
        self._policies: LRUCache[str, tuple[Policy, str]] = LRUCache(size)
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
            if loaded is None or (loaded.policy_name and loaded.policy_name not in self._policies):
                raise
            _log.warning("answering from memory, the store is away", profile=str(reference))
            return Resolved(loaded, True, self._policies.get(loaded.policy_name))
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
            loaded = LoadedProfile(
                info,
                profile,
                Reference(profile),
                content.header.provenance,
                content.header.policy_name,
            )
            self._loaded[_key(info)] = loaded
        return Resolved(loaded, policy=await self._policy(loaded.policy_name))

    async def _policy(self, name: str) -> tuple[Policy, str] | None:
        """Return the rules of the stored policy that a profile names."""
        if not name:
            return None
        try:
            stored = await self._policy_store.get(PolicyReference.parse("policy_name", name))
        except StoreUnavailableError:
            known = self._policies.get(name)
            if known is None:
                raise
            return known
        found = self._policies[name] = (stored.policy, str(stored.reference))
        return found


def _key(info: VersionInfo) -> tuple[str, int, str]:
    return str(info.name), info.version, info.digest
