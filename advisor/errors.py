"""What the service refuses or cannot do, apart from bad values.

::

    AdvisorError
    |- OpeningError
    |  |- OpeningMissingError
    |  `- OpeningRepeatedError
    |- MessageError
    |  |- MessageUnreadableError
    |  |- MessageTooLargeError
    |  `- TooManyGroupsError
    |- NotFoundError
    |  |- ProfileNotFoundError
    |  |- VersionNotFoundError
    |  |- RunNotFoundError
    |  `- PolicyNotFoundError
    |- AliasMovedError
    |- PolicyMovedError
    |- VersionInUseError
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

A value out of its range is :class:`advisor.policy.InvalidValueError`, a layout that does not map
:class:`advisor.policy.LayoutMismatchError`. :mod:`advisor.wire.errors` holds the one table from
exceptions to status codes.
"""

from __future__ import annotations

from collections.abc import Sequence


class AdvisorError(Exception):
    """Base of this package's errors."""


class OpeningError(AdvisorError):
    """The opening of a run is not where it belongs."""


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
    """A message cannot be taken."""


class MessageUnreadableError(MessageError):
    """The bytes are not a message of the contract."""

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

    def __init__(self, groups: int, most: int) -> None:
        super().__init__(
            f"the layout has {groups} groups and frozen names, but at most {most} are accepted; "
            "give several tensors one group, leave out frozen names, or raise the service's "
            "--max-groups"
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
            else "register it first, or look at `advisor profile list`"
        )
        super().__init__(f"there is no profile {name}; {hint}")
        self.nearest = tuple(nearest)


class VersionNotFoundError(NotFoundError):
    """The profile has no such version or alias.

    Attributes:
        known: The versions and aliases that there are.
    """

    def __init__(self, name: str, suffix: str, known: Sequence[str]) -> None:
        there = ", ".join(known) if known else "none"
        super().__init__(f"profile {name} has no version or alias {suffix!r}; there are: {there}")
        self.known = tuple(known)


class RunNotFoundError(NotFoundError):
    """There is no such run."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no run {name}; it has not measured yet, or its last measurement is more "
            "than 30 days ago (`advisor run list` shows the runs)"
        )


class AliasMovedError(AdvisorError):
    """The alias names another version than the caller expected."""

    def __init__(self, alias: str, expected: int | None, actual: int) -> None:
        since = (
            "and moved since it was read"
            if expected is None
            else f"not {expected or 'none'} as expected"
        )
        super().__init__(
            f"alias {alias!r} names version {actual or 'none'}, {since}; "
            "somebody else moved it: read it again and decide anew"
        )


class VersionInUseError(AdvisorError):
    """An alias names the version that is to be deleted."""

    def __init__(self, name: str, aliases: Sequence[str]) -> None:
        super().__init__(
            f"{name} is named by alias {', '.join(aliases)}; "
            "move the alias to another version first"
        )


class ProfileDamagedError(AdvisorError):
    """Stored content does not match its digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"the stored content of digest {digest} is damaged; restore the store from a backup or "
            "register the same profile again, which puts it back"
        )


class ProfileTooNewError(AdvisorError):
    """Stored content says what this service does not know."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"the stored content of digest {digest} was written by a newer service; upgrade this "
            "one"
        )


class StoreDamagedError(AdvisorError):
    """A key of the store holds another kind of value than it must."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the store is damaged, and nothing was changed: {what}; something else writes to this "
            "Redis, or a newer service does: restore it from a backup, or upgrade this service"
        )


class TooBusyError(AdvisorError):
    """There is no room for another call."""

    def __init__(self, most: int, *, is_stream: bool) -> None:
        what, setting = ("streams", "max_streams") if is_stream else ("calls", "max_calls")
        super().__init__(
            f"{most} {what} are under way, which is as many as this service takes; try again "
            f"shortly, run more replicas, or raise --{setting.replace('_', '-')}"
        )


class UnauthenticatedError(AdvisorError):
    """The caller did not prove who it is."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; set FSLR_TOKEN or FSLR_TOKEN_FILE to a token that `advisor token create` "
            "made for your project"
        )


class PermissionDeniedError(AdvisorError):
    """The caller may not do that."""


class QuotaExceededError(AdvisorError):
    """One caller uses as much as one may.

    Attributes:
        retry_s: When there is room again, in seconds.
    """

    def __init__(self, who: str, what: str, setting: str, *, retry_s: float = 1.0) -> None:
        super().__init__(
            f"{who} {what}; try again after the delay, use a token for each team, or raise "
            f"--{setting.replace('_', '-')}"
        )
        self.retry_s = retry_s


class StoppingError(AdvisorError):
    """The service is being stopped."""

    def __init__(self) -> None:
        super().__init__("the service is being stopped; connect again, to another replica")


class StoreUnavailableError(AdvisorError):
    """Redis does not answer, or refuses the service a command."""

    def __init__(self, cause: str, *, is_refused: bool = False) -> None:
        super().__init__(
            f"the store refuses the service a command ({cause}); its user lacks rights: see Rights "
            "in docs/how-to/redis.md"
            if is_refused
            else f"the store does not answer ({cause}); try again shortly"
        )


class RequestReusedError(AdvisorError):
    """A request identifier was used for another request before."""

    def __init__(self) -> None:
        super().__init__(
            "request_id was used for another request within the last day; give every request its "
            "own, and the same one to its retries alone"
        )


class AuditUnavailableError(AdvisorError):
    """A write was refused because it could not be written down who made it."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the audit record cannot be written ({reason}), so nothing was changed; "
            "recommendations go on. Repair the project's audit stream in Redis, then try again"
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
            hint = "`advisor policy list` shows what there is, `advisor policy set` makes one"
        super().__init__(f"there is no policy {name}; {hint}")
        self.nearest = tuple(nearest)


class PolicyMovedError(AdvisorError):
    """The policy's latest version is another than the caller expected."""

    def __init__(self, name: str, expected: int, actual: int) -> None:
        super().__init__(
            f"the latest version of policy {name!r} is {actual or 'none'}, not "
            f"{expected or 'none'} as expected; somebody else changed it: read it again and decide "
            "anew"
        )
