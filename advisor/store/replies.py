"""What the Lua scripts reply, as frozen dataclasses.

The outcomes are defined here only: :func:`advisor.store.lua.load_script` puts them in front of
every script, where ``AliasOutcome.MOVED`` is the same number as in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from advisor.registry.profiles import Alias, VersionInfo
from advisor.registry.resource_names import ProfileName
from advisor.registry.runs import RecordResult
from advisor.store.times import from_ms


class RegisterOutcome(IntEnum):
    """What ``register_profile.lua`` did."""

    EXISTED = 0
    """The same content is registered already."""
    CREATED = 1


class ResolveOutcome(IntEnum):
    """What ``resolve_profile.lua`` found."""

    NO_PROFILE = -2
    NO_VERSION = -1
    FOUND = 1


class AliasOutcome(IntEnum):
    """What ``set_alias.lua`` did."""

    NO_ALIAS = -3
    """The alias to delete does not exist."""
    NO_PROFILE = -2
    NO_VERSION = -1
    CONFLICT = 0
    """The alias is not in the state that the caller expects."""
    MOVED = 1
    """The alias names the version now, or named it already."""
    DELETED = 2


class DeleteOutcome(IntEnum):
    """What ``delete_profile.lua`` did."""

    IN_USE = -1
    """Aliases name the version."""
    NOT_FOUND = 0
    DELETED = 1


class DeleteAllOutcome(IntEnum):
    """What ``delete_all_versions.lua`` did."""

    CHANGED = -2
    """The stored versions are not those that the caller has read."""
    IN_USE = -1
    """The profile has aliases."""
    NOT_FOUND = 0
    DELETED = 1


class DeleteVersionsOutcome(IntEnum):
    """What ``delete_versions.lua`` did."""

    CONFLICT = -1
    """The latest version is not the one that the caller expects."""
    NOT_FOUND = 0
    DELETED = 1


class DeleteRunOutcome(IntEnum):
    """What ``delete_run.lua`` did."""

    NOT_FOUND = 0
    DELETED = 1


class VersionOutcome(IntEnum):
    """What ``set_version.lua`` did."""

    CONFLICT = -1
    """The latest version is not the one that the caller expects."""
    UNCHANGED = 0
    """The latest version has the same content already."""
    CREATED = 1


class ReportMetricsOutcome(IntEnum):
    """What ``report_metrics.lua`` did."""

    TOO_MANY = -1
    """The run would have too many metrics."""
    NO_RUN = 0
    STORED = 1


class TokenOutcome(IntEnum):
    """What ``set_token.lua`` did."""

    CONFLICT = 0
    """The token to create exists already, or the one to revoke does not."""
    DONE = 1


OUTCOMES: tuple[type[IntEnum], ...] = (
    RegisterOutcome,
    ResolveOutcome,
    AliasOutcome,
    DeleteOutcome,
    DeleteAllOutcome,
    DeleteVersionsOutcome,
    DeleteRunOutcome,
    VersionOutcome,
    RecordResult,
    ReportMetricsOutcome,
    TokenOutcome,
)
"""All outcomes that scripts use."""


@dataclass(frozen=True, slots=True)
class RegisterReply:
    """The reply of ``register_profile.lua``.

    Attributes:
        outcome: What was done.
        version: The version with the content.
        created_ms: When that version was registered, in milliseconds since 1970.
        aliases: The aliases that name it, sorted.
    """

    outcome: RegisterOutcome
    version: int
    created_ms: int
    aliases: tuple[str, ...]

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> Self:
        """Return the reply from its items."""
        outcome, version, created_ms, *aliases = reply
        return cls(RegisterOutcome(outcome), version, created_ms, _names(aliases))


@dataclass(frozen=True, slots=True)
class ResolveReply:
    """The reply of ``resolve_profile.lua``; all but the outcome only if a version was found.

    Attributes:
        outcome: What was found.
        version: The version.
        digest: The digest of its content.
        created_ms: When it was registered, in milliseconds since 1970.
        aliases: All aliases of the profile, by name.
        versions: All versions of the profile, in ascending order, if the caller asked for them.
    """

    outcome: ResolveOutcome
    version: int = 0
    digest: str = ""
    created_ms: int = 0
    aliases: tuple[Alias, ...] = ()
    versions: tuple[int, ...] = ()

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> Self:
        """Return the reply from its items."""
        outcome = ResolveOutcome(reply[0])
        if outcome is not ResolveOutcome.FOUND:
            return cls(outcome)
        _, version, digest, created_ms, flat, versions = reply
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        aliases = [Alias(name.decode(), named, moves) for name, named, moves in triples]
        aliases.sort(key=lambda alias: alias.name)
        return cls(
            outcome, version, digest.decode(), created_ms, tuple(aliases), tuple(sorted(versions))
        )

    def version_info(self, name: ProfileName) -> VersionInfo:
        """Return the version that was found, with the aliases that name it."""
        naming = tuple(alias.name for alias in self.aliases if alias.version == self.version)
        return VersionInfo(name, self.version, self.digest, from_ms(self.created_ms), naming)


@dataclass(frozen=True, slots=True)
class SetAliasReply:
    """The reply of ``set_alias.lua``.

    Attributes:
        outcome: What was done.
        previous_version: The version that the alias named before the call; 0: none.
        moves: How often the alias has moved.
        version: The version that it names now, if it moved.
        digest: The digest of that version's content.
        created_ms: When that version was registered, in milliseconds since 1970.
        aliases: All aliases that name that version, sorted.
    """

    outcome: AliasOutcome
    previous_version: int = 0
    moves: int = 0
    version: int = 0
    digest: str = ""
    created_ms: int = 0
    aliases: tuple[str, ...] = ()

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> Self:
        """Return the reply from its items."""
        outcome = AliasOutcome(reply[0])
        if outcome is not AliasOutcome.MOVED:
            return cls(outcome, *reply[1:])
        _, previous, moves, version, digest, created_ms, *aliases = reply
        return cls(outcome, previous, moves, version, digest.decode(), created_ms, _names(aliases))


@dataclass(frozen=True, slots=True)
class DeleteReply:
    """The reply of ``delete_profile.lua``.

    Attributes:
        outcome: What was done.
        aliases: The aliases that name the version, sorted, if it is in use.
    """

    outcome: DeleteOutcome
    aliases: tuple[str, ...] = ()

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> Self:
        """Return the reply from its items."""
        outcome, *aliases = reply
        return cls(DeleteOutcome(outcome), _names(aliases))


@dataclass(frozen=True, slots=True)
class SetVersionReply:
    """The reply of ``set_version.lua``.

    Attributes:
        outcome: What was done.
        version: The latest version.
        created_ms: When it was stored, in milliseconds since 1970; 0 at a conflict.
    """

    outcome: VersionOutcome
    version: int
    created_ms: int = 0

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> Self:
        """Return the reply from its items."""
        outcome, *rest = reply
        return cls(VersionOutcome(outcome), *rest)


def _names(aliases: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(alias.decode() for alias in aliases)
