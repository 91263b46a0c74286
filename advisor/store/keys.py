"""All keys, built in one place.

Every key of a project carries the same hash tag ``{project}``, so that in a Redis Cluster the keys
of one script lie on one node. Identifiers hold no character that has a meaning here (see
:mod:`advisor.registry.resource_names`), so one project can never spell another's key.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.registry.resource_names import ProfileName, RunName


def profiles(project: str) -> str:
    """Sorted set of the project's profile identifiers, all with score 0 (ordered by name)."""
    return f"fslr:{{{project}}}:profiles"


def runs(project: str) -> str:
    """Sorted set of the project's run identifiers, scored by creation time in milliseconds."""
    return f"fslr:{{{project}}}:runs"


def labels(project: str) -> str:
    """Sorted set of ``key NUL value NUL profile``, the labels of latest versions, with score 0."""
    return f"fslr:{{{project}}}:labels"


def audit(project: str) -> str:
    """Stream of the project's writes; never trimmed."""
    return f"fslr:{{{project}}}:audit"


def policies(project: str) -> str:
    """Sorted set of the project's policy identifiers, all with score 0 (ordered by name)."""
    return f"fslr:{{{project}}}:policies"


def policy(project: str, policy: str) -> str:
    """Hash: ``latest``: a version; ``v:{version}``: its rules; ``t:{version}``: when, in ms."""
    return f"fslr:{{{project}}}:policy:{policy}"


def tokens(project: str) -> str:
    """Hash: token identifier -> record, as JSON."""
    return f"fslr:{{{project}}}:tokens"


def request(project: str, request_id: str) -> str:
    """Hash: fingerprint and answer of a write, kept for a day."""
    return f"fslr:{{{project}}}:request:{request_id}"


@dataclass(frozen=True, slots=True)
class ProfileKeys:
    """The keys of one profile."""

    name: ProfileName

    @property
    def index(self) -> str:
        """Hash of a profile's versions.

        ``last``: the highest number given; ``latest``: the highest that is stored; ``v:{version}``:
        its digest; ``d:{digest}``: its version; ``t:{version}``: when, in milliseconds;
        ``l:{version}``: its labels, as JSON list of ``key NUL value``; ``g:{alias}``: how often the
        alias moved.
        """
        return f"fslr:{{{self.name.project}}}:profile:{self.name.profile}:index"

    @property
    def aliases(self) -> str:
        """Hash: alias -> version."""
        return f"fslr:{{{self.name.project}}}:profile:{self.name.profile}:aliases"

    @property
    def content_prefix(self) -> str:
        """What :meth:`content` puts before the digest."""
        return f"fslr:{{{self.name.project}}}:profile:{self.name.profile}:content:"

    def content(self, digest: str) -> str:
        """Hash: ``header``, ``arrays`` and ``summary`` of one version; the last is for lists."""
        return self.content_prefix + digest


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run."""

    name: RunName

    @property
    def summary(self) -> str:
        """Hash: opening, times, last step and counts."""
        return f"fslr:{{{self.name.project}}}:run:{self.name.run}"

    @property
    def events(self) -> str:
        """Capped stream of the run's events."""
        return f"fslr:{{{self.name.project}}}:run:{self.name.run}:events"
