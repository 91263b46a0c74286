"""A cache of profiles: those resolved before keep serving while the store is unavailable."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from cachetools import LRUCache

from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.errors import NotFoundError, StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.policy import Policy
from advisor.registry.policies import StoredPolicy
from advisor.registry.profiles import ProfileContent, VersionInfo
from advisor.registry.resolution import resolve_and_read
from advisor.registry.resource_names import PolicyReference, ProfileReference
from advisor.runtime.event_loop import retrieve_exception

_log = structlog.get_logger()
# Minimum time between lookups. Callers that ask for the same name meanwhile share the next lookup.
# The first lookup after a pause does not wait.
_MIN_INTERVAL_S = 0.005


class ProfileReader(Protocol):
    """Reads profiles from the store."""

    async def resolve(self, reference: ProfileReference) -> VersionInfo:
        """Return the version that a reference names.

        Raises:
            NotFoundError: There is no such profile, version or alias.
            StoreUnavailableError: The store does not answer.
        """
        ...

    async def content(self, info: VersionInfo) -> ProfileContent:
        """Return the content of a version.

        Raises:
            VersionNotFoundError: The version was deleted.
            StoreUnavailableError: The store does not answer.
        """
        ...


class PolicyReader(Protocol):
    """Reads policies from the store."""

    async def get(self, reference: PolicyReference) -> StoredPolicy:
        """Return one version; the latest if the reference names none.

        Raises:
            PolicyNotFoundError: There is no such policy or version.
            StoreUnavailableError: The store does not answer.
        """
        ...


class CachedProfiles:
    """Resolves names in the store, and caches contents, which never change.

    Args:
        store: The store of profiles.
        policies: The store of policies.
        size: Maximum number of cached versions, and of cached names.
        metrics: Where lookups are counted.
    """

    def __init__(
        self, store: ProfileReader, policies: PolicyReader, *, size: int, metrics: Metrics
    ) -> None:
        self._store = store
        self._policy_store = policies
        self._lookups = {word: metrics.profiles.labels(word) for word in ("hit", "miss", "stale")}
        self._policies: LRUCache[str, tuple[Policy, str]] = LRUCache(size)
        self._loaded: LRUCache[tuple[str, int, str], LoadedProfile] = LRUCache(size)
        self._names: LRUCache[ProfileReference, VersionInfo] = LRUCache(size)
        self._next: dict[ProfileReference, asyncio.Task[tuple[ResolvedProfile, str]]] = {}
        self._next_at = 0.0  # of the event loop's clock

    async def resolve(self, reference: ProfileReference) -> ResolvedProfile:
        """Return the version that a reference names.

        Raises:
            StoreUnavailableError: The store is unavailable, and the name or the profile's policy is
                not cached.
            NotFoundError: There is no such profile, version or alias, or the profile's policy does
                not exist.
        """
        lookup = self._next.get(reference)
        if lookup is None:
            lookup = self._next[reference] = asyncio.create_task(self._look_up(reference))
            lookup.add_done_callback(retrieve_exception)
        resolved, result = await asyncio.shield(lookup)  # a cancelled caller ends only its own wait
        self._lookups[result].inc()
        return resolved

    async def _look_up(self, reference: ProfileReference) -> tuple[ResolvedProfile, str]:
        """Resolve a name for all callers that ask before the lookup starts.

        Later callers get a new lookup, as this one may miss what was written in the meantime.

        Raises:
            StoreUnavailableError: As for :meth:`resolve`.
            NotFoundError: As for :meth:`resolve`.
        """
        loop = asyncio.get_running_loop()
        wait_s = self._next_at - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._next_at = max(self._next_at, loop.time() + _MIN_INTERVAL_S)
        del self._next[reference]
        try:
            loaded, result = await self._load(reference)
        except StoreUnavailableError:
            known = self._names.get(reference)
            loaded_before = self._loaded.get(_key(known)) if known else None
            if loaded_before is None:
                raise
            policy = self._policies.get(loaded_before.policy_name)
            if loaded_before.policy_name and policy is None:
                raise
            _log.warning("answering from cache: store unavailable", profile=str(reference))
            return ResolvedProfile(loaded_before, True, policy), "stale"
        except NotFoundError:
            # A deleted profile must not reappear while the store is unavailable.
            self._names.pop(reference, None)
            raise
        policy, stale = await self._policy(loaded.policy_name)
        return ResolvedProfile(loaded, stale, policy), result

    async def _load(self, reference: ProfileReference) -> tuple[LoadedProfile, str]:
        """Return the version that a reference names now, and ``hit`` or ``miss`` of the cache."""

        async def loaded(info: VersionInfo) -> tuple[LoadedProfile, str]:
            known = self._loaded.get(_key(info))
            if known is not None:
                return known, "hit"
            content = await self._store.content(info)
            ready = self._loaded[_key(info)] = await asyncio.to_thread(
                LoadedProfile.of, info, content
            )
            return ready, "miss"

        info, found = await resolve_and_read(
            reference, lambda: self._store.resolve(reference), loaded
        )
        # Only now: if the store fails before its content is read, the previous version serves.
        self._names[reference] = info
        return found

    async def _policy(self, name: str) -> tuple[tuple[Policy, str] | None, bool]:
        """Return the rules of the policy that a profile names, and whether they are cached ones."""
        if not name:
            return None, False
        try:
            stored = await self._policy_store.get(PolicyReference.parse("policy_name", name))
        except StoreUnavailableError:
            known = self._policies.get(name)
            if known is None:
                raise
            return known, True
        if stored.policy is None:  # happens only in lists
            return None, False
        found = (stored.policy, str(stored.reference))
        known = self._policies.get(name)
        if known == found:
            return known, False  # the same object for all runs, so that they share a plan
        self._policies[name] = found
        return found, False


def _key(info: VersionInfo) -> tuple[str, int, str]:
    return str(info.name), info.version, info.digest
