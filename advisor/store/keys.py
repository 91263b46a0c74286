"""All Redis keys.

Every key of a project has the hash tag ``{project}``, so in a Redis Cluster all keys of a script
are on the same node. Ids cannot contain ``{``, ``}`` or ``:`` (see
:mod:`advisor.registry.resource_names`), so no id of one project can produce a key of another.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.registry.resource_names import ProfileName, RunName


def profiles(project: str) -> str:
    """Sorted set of the project's profile ids, all with score 0, so ordered by name."""
    return f"fslr:{{{project}}}:profiles"


def runs(project: str) -> str:
    """Sorted set of the project's run ids, scored by creation time in milliseconds."""
    return f"fslr:{{{project}}}:runs"


def labels(project: str) -> str:
    """Sorted set of ``key NUL value NUL profile``: labels of latest versions, with score 0."""
    return f"fslr:{{{project}}}:labels"


def audit(project: str) -> str:
    """Stream of the project's writes, which is never trimmed."""
    return f"fslr:{{{project}}}:audit"


def policies(project: str) -> str:
    """Sorted set of the project's policy ids, all with score 0, so ordered by name."""
    return f"fslr:{{{project}}}:policies"


def policy(project: str, policy: str) -> str:
    """Hash: ``latest``: a version; ``v:{version}``: its rules; ``t:{version}``: its time in ms."""
    return f"fslr:{{{project}}}:policy:{policy}"


def recipes(project: str) -> str:
    """Sorted set of the project's recipe ids, all with score 0, so ordered by name."""
    return f"fslr:{{{project}}}:recipes"


def recipe(project: str, recipe: str) -> str:
    """Hash: ``latest``: a version; ``v:{version}``: its table; ``t:{version}``: its time in ms."""
    return f"fslr:{{{project}}}:recipe:{recipe}"


def tokens(project: str) -> str:
    """Hash: token id -> record, as JSON."""
    return f"fslr:{{{project}}}:tokens"


def request(project: str, request_id: str) -> str:
    """Hash: fingerprint and answer of a write, kept for one day."""
    return f"fslr:{{{project}}}:request:{request_id}"


def start_check() -> tuple[str, str, str]:
    """Hash, sorted set and stream of the check at the start, which removes them again."""
    prefix = "fslr:{start-check}:start-check"
    return f"{prefix}:hash", f"{prefix}:sorted-set", f"{prefix}:stream"


@dataclass(frozen=True, slots=True)
class ProfileKeys:
    """The keys of one profile."""

    name: ProfileName

    @property
    def index(self) -> str:
        """Hash of a profile's versions.

        ``last``: the highest version ever used; ``latest``: the highest stored version;
        ``v:{version}``: its digest; ``d:{digest}``: its version; ``t:{version}``: when it was
        registered, in milliseconds; ``l:{version}``: its labels, as a JSON list of
        ``key NUL value``; ``g:{alias}``: how often the alias has moved.
        """
        return f"fslr:{{{self.name.project}}}:profile:{self.name.profile}:index"

    @property
    def aliases(self) -> str:
        """Hash: alias -> version."""
        return f"fslr:{{{self.name.project}}}:profile:{self.name.profile}:aliases"

    @property
    def content_prefix(self) -> str:
        """The part of :meth:`content` before the digest."""
        return f"fslr:{{{self.name.project}}}:profile:{self.name.profile}:content:"

    def content(self, digest: str) -> str:
        """Hash: ``header``, ``arrays`` and ``summary`` of one version."""
        return self.content_prefix + digest


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run."""

    name: RunName

    @property
    def summary(self) -> str:
        """Hash: opening, times, last step, counts, and the jobs that reported.

        ``session``: the job that reported last; ``sessions``: those before it; ``concurrent``: when
        an earlier one came back, in ms; ``ended_session``: the last job that ended, ``ended``:
        when, in ms.
        """
        return f"fslr:{{{self.name.project}}}:run:{self.name.run}"

    @property
    def events(self) -> str:
        """Capped stream of the run's events."""
        return f"fslr:{{{self.name.project}}}:run:{self.name.run}:events"

    @property
    def metrics(self) -> str:
        """Capped stream of the run's metrics: ``step``, ``time`` in ms, number of a metric."""
        return f"fslr:{{{self.name.project}}}:run:{self.name.run}:metrics"

    @property
    def metric_names(self) -> str:
        """Hash: name of a metric -> its number, from 1."""
        return f"fslr:{{{self.name.project}}}:run:{self.name.run}:metric-names"
