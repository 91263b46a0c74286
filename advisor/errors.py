"""Errors of the service, except invalid values.

::

    AdvisorError
    |- OpeningError
    |  |- OpeningMissingError
    |  `- OpeningRepeatedError
    |- MessageError
    |  |- MessageUnreadableError
    |  |- MessageTooLargeError
    |  |- TooManyGroupsError
    |  `- TooManyMetricsError
    |- NotFoundError
    |  |- ProfileNotFoundError
    |  |- VersionNotFoundError
    |  |- RunNotFoundError
    |  |- PolicyNotFoundError
    |  `- RecipeNotFoundError
    |- AliasMovedError
    |- PolicyMovedError
    |- RecipeMovedError
    |- VersionInUseError
    |- PolicyInUseError
    |- RecipeInUseError
    |- RequestReusedError
    |- AuditUnavailableError
    |- ProfileDamagedError
    |- ProfileTooNewError
    |- StoreDamagedError
    |- UnauthenticatedError
    |- PermissionDeniedError
    |- TooBusyError
    |- QuotaExceededError
    |- StoppingError
    `- StoreUnavailableError

An invalid value raises :class:`advisor.policy.InvalidValueError`, a layout that does not map onto
the profile :class:`advisor.policy.LayoutMismatchError`. The one table from exceptions to status
codes is in :mod:`advisor.wire.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence

_MAX_LISTED_USERS = 5


class AdvisorError(Exception):
    """Base of this package's errors."""


class OpeningError(AdvisorError):
    """The opening of a run is missing or repeated."""


class OpeningMissingError(OpeningError):
    """The first message has no opening."""

    def __init__(self) -> None:
        super().__init__(
            "the first message of a stream (and a one-shot call) must carry `opening` with the "
            "profile and the layout; send it again together with the measurement"
        )


class OpeningRepeatedError(OpeningError):
    """A later message has an opening."""

    def __init__(self) -> None:
        super().__init__(
            "only the first message of a stream may carry `opening`; "
            "open a new stream to change profile or layout"
        )


class MessageError(AdvisorError):
    """A message is not accepted."""


class MessageUnreadableError(MessageError):
    """The bytes cannot be parsed as the expected message."""

    def __init__(self, message_name: str) -> None:
        super().__init__(
            f"the request's bytes are not a {message_name}; generate the client from the protos of "
            "this service's version"
        )


class MessageTooLargeError(MessageError):
    """The message is larger than the service accepts."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the message has {size_bytes} bytes, but at most {limit_bytes} are accepted; send "
            "fewer groups or points, or raise the service's --max-message-bytes"
        )


class TooManyGroupsError(MessageError):
    """A layout has more groups and frozen names than the service accepts."""

    def __init__(self, groups: int, limit: int) -> None:
        super().__init__(
            f"the layout has {groups} groups and frozen names, but at most {limit} are accepted; "
            "merge tensors into fewer groups, leave out frozen names, or raise the service's "
            "--max-groups"
        )


class TooManyMetricsError(MessageError):
    """A run would have more metrics than are stored for one run."""

    def __init__(self, run: str, metrics: int, limit: int) -> None:
        super().__init__(
            f"with this report {run} would have {metrics} metrics, but at most {limit} are stored; "
            "report fewer names, and keep steps and other numbers out of them"
        )


class NotFoundError(AdvisorError):
    """There is no such resource."""


class ProfileNotFoundError(NotFoundError):
    """There is no such profile.

    Attributes:
        nearest: Similar names, the nearest first.
    """

    def __init__(self, name: str, nearest: Sequence[str]) -> None:
        hint = (
            f"did you mean {' or '.join(nearest)}?"
            if nearest
            else "register it first; `advisor profile list` shows all profiles"
        )
        super().__init__(f"there is no profile {name}; {hint}")
        self.nearest = tuple(nearest)


class VersionNotFoundError(NotFoundError):
    """The profile has no such version or alias.

    Attributes:
        known: The existing versions and aliases.
    """

    def __init__(self, name: str, suffix: str, known: Sequence[str]) -> None:
        existing = ", ".join(known) if known else "none"
        super().__init__(
            f"profile {name} has no version or alias {suffix!r}; existing ones: {existing}"
        )
        self.known = tuple(known)


class RunNotFoundError(NotFoundError):
    """There is no such run."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no run {name}; it has not measured yet, or its last measurement was more "
            "than 30 days ago (`advisor run list` shows all runs)"
        )


class AliasMovedError(AdvisorError):
    """The alias names a different version than the caller expected."""

    def __init__(self, alias: str, expected: int | None, actual: int) -> None:
        since = (
            "and moved since it was read"
            if expected is None
            else f"not {expected or 'none'} as expected"
        )
        super().__init__(
            f"alias {alias!r} names version {actual or 'none'}, {since}; "
            "another client moved it: read it again before you retry"
        )


class VersionInUseError(AdvisorError):
    """The version to delete, or the profile with all its versions, is in use by an alias."""

    def __init__(self, name: str, aliases: Sequence[str], *, is_last: bool = False) -> None:
        remedy = "delete the alias" if is_last else "move the alias to a different version"
        super().__init__(f"{name} is named by alias {', '.join(aliases)}; {remedy} first")


class PolicyInUseError(AdvisorError):
    """The policy to delete is in use by profiles."""

    def __init__(self, name: str, profiles: Sequence[str]) -> None:
        super().__init__(f"{name} is named by {_listed(profiles)}; delete these versions first")


class ProfileDamagedError(AdvisorError):
    """Stored content does not match its digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"the stored content of digest {digest} is damaged; restore the store from a backup or "
            "register the same profile again, which puts it back"
        )


class ProfileTooNewError(AdvisorError):
    """Stored content has fields that this service does not know."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"the stored content of digest {digest} was written by a newer service; upgrade this "
            "one"
        )


class StoreDamagedError(AdvisorError):
    """A key of the store holds a value of the wrong kind."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the store is damaged, and nothing was changed: {problem}; another program or a newer "
            "service writes to this Redis: restore it from a backup, or upgrade this service"
        )


class TooBusyError(AdvisorError):
    """The service has as many calls in progress as it accepts."""

    def __init__(self, limit: int, *, is_stream: bool) -> None:
        what, setting = ("streams", "max_streams") if is_stream else ("calls", "max_calls")
        super().__init__(
            f"{limit} {what} are in progress, the maximum of this service; try again "
            f"shortly, run more replicas, or raise --{setting.replace('_', '-')}"
        )


class UnauthenticatedError(AdvisorError):
    """The caller is not authenticated."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; set FSLR_TOKEN or FSLR_TOKEN_FILE to a token for your project, created "
            "with `advisor token create`"
        )


class PermissionDeniedError(AdvisorError):
    """The caller's role does not permit the call."""


class QuotaExceededError(AdvisorError):
    """A caller has reached its quota.

    Attributes:
        retry_s: Delay after which the call may succeed, in seconds.
    """

    def __init__(self, who: str, what: str, setting: str, *, retry_s: float = 1.0) -> None:
        super().__init__(
            f"{who} {what}; try again after the delay, use a token for each team, or raise "
            f"--{setting.replace('_', '-')}"
        )
        self.retry_s = retry_s


class StoppingError(AdvisorError):
    """The service is shutting down."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down; reconnect to a different replica")


class StoreUnavailableError(AdvisorError):
    """Redis does not answer, or refuses a command because of how it is set up.

    Attributes:
        explanation: What is wrong and what to do; without ``remedy`` only what is wrong.
        remedy: What to do; empty if Redis does not answer.
        is_temporary: Whether the service may start all the same.
    """

    def __init__(
        self, cause: str, *, problem: str = "", remedy: str = "", is_temporary: bool = True
    ) -> None:
        self.remedy = remedy
        self.is_temporary = is_temporary
        if remedy:
            self.explanation = f"{problem} ({cause}); {remedy}"
            super().__init__(f"the store cannot be used: {self.explanation}")
        else:
            self.explanation = f"the store does not answer ({cause})"
            super().__init__(f"{self.explanation}; try again shortly")


class RequestReusedError(AdvisorError):
    """A request identifier was used for a different request before."""

    def __init__(self) -> None:
        super().__init__(
            "request_id was used for a different request within the last day; give each request "
            "its own, and reuse it only for retries"
        )


class AuditUnavailableError(AdvisorError):
    """A write was refused because its audit event could not be recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the audit event cannot be recorded ({reason}), so nothing was changed; "
            "recommendations still work. Repair the project's audit stream in Redis, then try again"
        )


class PolicyNotFoundError(NotFoundError):
    """There is no such policy, or not that version of it.

    Attributes:
        nearest: Similar names, the nearest first.
    """

    def __init__(self, name: str, nearest: Sequence[str] = (), latest: int = 0) -> None:
        if latest:
            hint = f"its versions are 1 to {latest}"
        elif nearest:
            hint = f"did you mean {' or '.join(nearest)}?"
        else:
            hint = "`advisor policy list` shows all policies, `advisor policy set` creates one"
        super().__init__(f"there is no policy {name}; {hint}")
        self.nearest = tuple(nearest)


class RecipeNotFoundError(NotFoundError):
    """There is no such recipe, or not that version of it.

    Attributes:
        nearest: Similar names, the nearest first.
    """

    def __init__(self, name: str, nearest: Sequence[str] = (), latest: int = 0) -> None:
        if latest:
            hint = f"its versions are 1 to {latest}"
        elif nearest:
            hint = f"did you mean {' or '.join(nearest)}?"
        elif "/" not in name:
            hint = f"a stored one is named projects/PROJECT/recipes/{name}"
        else:
            hint = "see `advisor recipe list`, and `advisor recipe stored` for those of a project"
        super().__init__(f"there is no recipe {name}; {hint}")
        self.nearest = tuple(nearest)


class RecipeMovedError(AdvisorError):
    """The recipe's latest version is not the one that the caller expected."""

    def __init__(self, name: str, expected: int, actual: int) -> None:
        super().__init__(_moved("recipe", name, expected, actual))


class RecipeInUseError(AdvisorError):
    """The recipe to delete is in use by policies or profiles."""

    def __init__(self, name: str, users: Sequence[str]) -> None:
        super().__init__(f"{name} is named by {_listed(users)}; delete these first")


class PolicyMovedError(AdvisorError):
    """The policy's latest version is not the one that the caller expected."""

    def __init__(self, name: str, expected: int, actual: int) -> None:
        super().__init__(_moved("policy", name, expected, actual))


def _listed(users: Sequence[str]) -> str:
    """Return the first of the resources that use another one, and the number of the rest."""
    listed = ", ".join(users[:_MAX_LISTED_USERS])
    more = len(users) - _MAX_LISTED_USERS
    return f"{listed} and {more} more" if more > 0 else listed


def _moved(kind: str, name: str, expected: int, actual: int) -> str:
    return (
        f"the latest version of {kind} {name!r} is {actual or 'none'}, not {expected or 'none'} as "
        "expected; another client changed it: read it again before you retry"
    )
