"""The state of the registry after each write: the audit record, replayed in memory.

The record states the order of the writes. Each write must be valid in the state before it.
Otherwise the registry broke a promise.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from tests.chaos.history import Values
from tests.chaos.violations import Violation

_NAME = re.compile(r"(profiles|policies)/([a-z0-9-]+)@([a-z0-9-]+)")
_State = TypeVar("_State")


@dataclass(frozen=True, slots=True)
class Event:
    """One write of the audit record.

    Attributes:
        position: Number of writes before it.
        request_id: The request that made it.
        action: The action.
        name: Name of the profile or policy.
        suffix: Its version or alias.
        detail: The detail, unchanged from the record.
    """

    position: int
    request_id: str
    action: str
    name: str
    suffix: str
    detail: str

    def __str__(self) -> str:
        return f"{self.action} {self.name}@{self.suffix} ({self.detail})"

    @property
    def move(self) -> tuple[int, int]:
        """The versions that the alias named before and after; 0 for no version."""
        before, after = self.detail.split("->")
        return int(before), int(after.strip() or 0)


@dataclass(frozen=True, slots=True)
class ProfileState:
    """A profile at one time.

    Attributes:
        versions: Digest of each version that is stored.
        aliases: The version that each alias names.
        moves: How often each alias moved.
        last: The highest version number that was ever assigned.
    """

    versions: Mapping[int, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    moves: Mapping[str, int] = field(default_factory=dict)
    last: int = 0

    def resolve(self, suffix: str) -> int:
        """Return the version that a suffix names; 0 for no version."""
        if not suffix:
            return max(self.versions, default=0)
        version = int(suffix) if suffix.isdigit() else self.aliases.get(suffix, 0)
        return version if version in self.versions else 0


@dataclass(slots=True)
class Timeline(Generic[_State]):
    """The states of one profile or policy, each with the number of writes before it."""

    states: list[_State]
    since: list[int] = field(default_factory=lambda: [0])

    @property
    def last(self) -> _State:
        """The last state."""
        return self.states[-1]

    def append(self, position: int, state: _State) -> None:
        """Add the state after the write at ``position``."""
        self.since.append(position + 1)
        self.states.append(state)

    def after(self, writes: int) -> _State:
        """Return the state after a number of writes."""
        return self.states[bisect_right(self.since, writes) - 1]

    def between(self, fewest: int, most: int) -> Iterator[tuple[int, _State]]:
        """Iterate over states after ``fewest`` to ``most`` writes, each with its first number."""
        i = bisect_right(self.since, fewest) - 1
        yield fewest, self.states[i]
        while (i := i + 1) < len(self.since) and self.since[i] <= most:
            yield self.since[i], self.states[i]


@dataclass(slots=True)
class Replay:
    """The registry over time.

    Attributes:
        events: The writes in order.
        profiles: Each profile over time.
        policies: Latest version of each policy over time; 0 for no version.
        violations: Writes that are not valid in the state before them.
    """

    events: list[Event]
    profiles: dict[str, Timeline[ProfileState]] = field(default_factory=dict)
    policies: dict[str, Timeline[int]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def profile(self, name: str) -> Timeline[ProfileState]:
        """Return a profile over time."""
        return self.profiles.setdefault(name, Timeline([ProfileState()]))

    def policy(self, name: str) -> Timeline[int]:
        """Return a policy over time."""
        return self.policies.setdefault(name, Timeline([0]))

    def _wrong(self, count: str, event: Event, why: str) -> None:
        self.violations.append(Violation(count, f"{event}: {why}"))

    def apply(self, event: Event) -> None:
        """Apply a write."""
        match event.action:
            case "register" | "restore":
                self._register(event)
            case "delete":
                self._delete(event)
            case "set alias" | "delete alias":
                self._move(event)
            case "set policy":
                timeline = self.policy(event.name)
                if int(event.suffix) != timeline.last + 1:
                    self._wrong("doubled", event, f"the latest version was {timeline.last}")
                timeline.append(event.position, int(event.suffix))

    def _register(self, event: Event) -> None:
        timeline, version = self.profile(event.name), int(event.suffix)
        state = timeline.last
        if event.action == "restore":
            self._wrong("lost", event, "the content had been lost")
        else:
            if version <= state.last:
                self._wrong(
                    "doubled", event, f"version numbers up to {state.last} were already assigned"
                )
            if event.detail in state.versions.values():
                self._wrong("doubled", event, "the content already has a version")
        versions = {**state.versions, version: event.detail}
        last = max(version, state.last)
        timeline.append(event.position, replace(state, versions=versions, last=last))

    def _delete(self, event: Event) -> None:
        timeline, version = self.profile(event.name), int(event.suffix)
        state = timeline.last
        if state.versions.get(version) != event.detail:
            self._wrong("lost", event, "the version did not exist or had different content")
        if version in state.aliases.values():
            self._wrong("lost", event, "an alias named the version")
        versions = {v: digest for v, digest in state.versions.items() if v != version}
        timeline.append(event.position, replace(state, versions=versions))

    def _move(self, event: Event) -> None:
        timeline, alias = self.profile(event.name), event.suffix
        state = timeline.last
        before, after = event.move
        if state.aliases.get(alias, 0) != before:
            self._wrong("lost", event, f"the alias named {state.aliases.get(alias, 0)} before")
        if after and after not in state.versions:
            self._wrong("lost", event, "the version did not exist")
        aliases = {name: version for name, version in state.aliases.items() if name != alias}
        if event.action == "set alias":
            aliases[alias] = after
        moves = {**state.moves, alias: state.moves.get(alias, 0) + 1}
        timeline.append(event.position, replace(state, aliases=aliases, moves=moves))


def replayed(audit: Sequence[Values]) -> Replay:
    """Return the registry over time.

    Args:
        audit: The record with the oldest write first.

    Raises:
        ValueError: A name in the record is malformed.
    """
    replay = Replay([])
    for position, entry in enumerate(audit):
        found = _NAME.fullmatch(entry["name"])
        if found is None:
            raise ValueError(f"the audit record names {entry['name']!r}, which no client used")
        event = Event(
            position, entry["request_id"], entry["action"], found[2], found[3], entry["detail"]
        )
        replay.events.append(event)
        replay.apply(event)
    return replay
