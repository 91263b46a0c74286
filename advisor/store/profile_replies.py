"""What the scripts about profiles reply, as domain objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.registry.profiles import Alias, VersionInfo
from advisor.registry.resource_names import ProfileName
from advisor.store.times import from_ms


def info_of(name: ProfileName, found: Sequence[Any], naming: Sequence[bytes]) -> VersionInfo:
    """Return a version.

    Args:
        name: The profile.
        found: Version, digest, and when it was registered, in milliseconds.
        naming: The aliases that name it, sorted.
    """
    version, digest, created_ms = found
    aliases = tuple(alias.decode() for alias in naming)
    return VersionInfo(name, version, digest, from_ms(created_ms), aliases)


def resolved(name: ProfileName, found: Sequence[Any]) -> VersionInfo:
    """Return the version that ``resolve_profile.lua`` found."""
    version, digest, created_ms, aliases, _ = found
    naming = [alias.name.encode() for alias in aliases_of(aliases) if alias.version == version]
    return info_of(name, [version, digest.decode(), created_ms], naming)


def aliases_of(flat: Sequence[Any]) -> list[Alias]:
    """Return the aliases of a flat list of names, versions and numbers of moves, by name."""
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    found = [Alias(alias.decode(), version, moves) for alias, version, moves in triples]
    return sorted(found, key=lambda alias: alias.name)
