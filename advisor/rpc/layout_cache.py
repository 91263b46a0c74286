"""Runs are opened here: runs of one model share what is read of its layout, and how it maps.

To read a layout and to map it onto a profile's takes longer than all else of a first answer, and
what comes of it never changes. Both are kept by a digest of the layout: a hundred streams of one
model hold one layout and one mapping, and a caller of single messages waits for them once.
"""

from __future__ import annotations

from hashlib import blake2b

from cachetools import LRUCache

from advisor.advising.advice import Advice, Opening, ProfileSource, ResolvedProfile
from advisor.policy import Layout, LayoutMapping
from advisor.rpc.offloading import computed
from advisor.wire import opening_from_proto
from advisor.wire.field_paths import field_path
from fslr.advisor.v1 import advisor_service_pb2 as pb

_MOST_NAMES = 100_000  # a name takes less than 1 KiB, with its place and part of a mapping

_MappingKey = tuple[object, ...]


class LayoutCache:
    """Opens runs.

    Args:
        profiles: Where profiles come from.
        most_names: Most names in the layouts that are kept, frozen ones and role templates too; a
            layout of more is read anew for each run.
    """

    def __init__(self, profiles: ProfileSource, most_names: int = _MOST_NAMES) -> None:
        self._profiles = profiles
        self._most_names = most_names
        self._layouts: LRUCache[bytes, Layout] = LRUCache(most_names, getsizeof=_names)
        self._mappings: LRUCache[_MappingKey, LayoutMapping] = LRUCache(
            most_names, getsizeof=lambda mapping: len(mapping.matches) + len(mapping.targets)
        )

    async def open(self, message: pb.RunOpening) -> tuple[Opening, Advice]:
        """Return the opening of a message and the advice for its run.

        Raises:
            InvalidValueError: A value is out of its range.
            StoreUnavailableError: The profile is not known here and the store is away.
            NotFoundError: There is no such profile, version or alias.
        """
        digest = blake2b(message.layout.SerializeToString(), digest_size=32).digest()
        names = len(message.layout.groups) + len(message.layout.frozen_names)
        known = self._layouts.get(digest)
        if known is not None:
            opening = opening_from_proto(message, known)
        else:
            opening = await computed(names, opening_from_proto, message)
            if _names(opening.layout) <= self._most_names:
                self._layouts[digest] = opening.layout
        resolved = await self._profiles.resolve(opening.profile)
        return opening, await self._advice(digest, names, resolved, opening)

    async def _advice(
        self, digest: bytes, names: int, resolved: ResolvedProfile, opening: Opening
    ) -> Advice:
        info = resolved.loaded.info
        rules = resolved.rules(opening)
        key = (digest, info.name, info.version, info.digest, rules.depth_rule, rules.unmatched_rule)
        known = self._mappings.get(key)
        if known is not None:
            return Advice(resolved, opening, known)
        names += resolved.loaded.names
        with field_path("opening"):
            advice = await computed(names, Advice, resolved, opening)
        if len(advice.mapping.matches) + len(advice.mapping.targets) <= self._most_names:
            self._mappings[key] = advice.mapping
        return advice


def _names(layout: Layout) -> int:
    return len(layout) + len(layout.frozen_names) + len(layout.role_templates)
