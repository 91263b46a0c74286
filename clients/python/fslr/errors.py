"""Everything that this package raises.

::

    FslrError
    |- AttachError              the training job cannot be attached; said before the first step
    |- MeasurementError         the model cannot be measured
    |- ProfileFileError         a profile file cannot be read
    |- CertificateError         TLS files cannot be used
    |- TokenError               a token cannot be read
    `- ServiceError             the advisor refused, or could not answer
       |- InvalidRequestError   a value is out of its range
       |- NotFoundError
       |  |- ProfileNotFoundError
       |  |- VersionNotFoundError
       |  |- RunNotFoundError
       |  `- PolicyNotFoundError
       |- LayoutMismatchError   groups have no counterpart in the profile
       |- AliasMovedError       somebody else moved the alias
       |- PolicyMovedError      somebody else changed the policy
       |- VersionInUseError     an alias names the version
       |- MessageTooLargeError
       |- AuthenticationError   no token, or none that is in force
       |- PermissionDeniedError the token's role or project does not allow it
       |- UnavailableError      the advisor or its store does not answer
       |  |- TooBusyError       the advisor, or one token, has as many calls as it may
       |  `- DeadlineExceededError
       `- InternalServiceError  a defect or damaged data on the other side
"""

from __future__ import annotations

from collections.abc import Mapping

ERROR_DOMAIN = "fslr.advisor"


class FslrError(Exception):
    """Base of this package's errors."""


class AttachError(FslrError):
    """The training job cannot be attached; said before the first step."""


class MeasurementError(FslrError):
    """The model cannot be measured."""


class ProfileFileError(FslrError):
    """A profile file cannot be read."""


class CertificateError(FslrError):
    """TLS files cannot be used."""


class TokenError(FslrError):
    """A token cannot be read."""


class ServiceError(FslrError):
    """The advisor refused, or could not answer.

    Attributes:
        reason: Stable UPPER_SNAKE reason; empty where the advisor could not be reached.
        metadata: Facts for programs, by key.
    """

    def __init__(
        self, message: str, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidRequestError(ServiceError):
    """A value is out of its range."""


class NotFoundError(ServiceError):
    """There is no such resource."""


class ProfileNotFoundError(NotFoundError):
    """There is no such profile."""


class VersionNotFoundError(NotFoundError):
    """The profile has no such version or alias."""


class RunNotFoundError(NotFoundError):
    """There is no such run."""


class LayoutMismatchError(ServiceError):
    """Groups have no counterpart in the profile."""


class AliasMovedError(ServiceError):
    """Somebody else moved the alias."""


class PolicyNotFoundError(NotFoundError):
    """There is no such policy, or not that version of it."""


class PolicyMovedError(ServiceError):
    """Somebody else changed the policy."""


class VersionInUseError(ServiceError):
    """An alias names the version."""


class MessageTooLargeError(ServiceError):
    """The message is larger than the advisor accepts."""


class AuthenticationError(ServiceError):
    """The caller shows no token, or none that is in force."""


class PermissionDeniedError(ServiceError):
    """The token's role or project does not allow the call."""


class UnavailableError(ServiceError):
    """The advisor or its store does not answer."""


class TooBusyError(UnavailableError):
    """The advisor, or one token, has as many calls as it may."""


class DeadlineExceededError(UnavailableError):
    """The advisor did not answer in time."""


class InternalServiceError(ServiceError):
    """A defect or damaged data on the other side."""


BY_REASON: dict[str, type[ServiceError]] = {
    "INVALID_VALUE": InvalidRequestError,
    "OPENING_MISSING": InvalidRequestError,
    "OPENING_REPEATED": InvalidRequestError,
    "MESSAGE_UNREADABLE": InvalidRequestError,
    "MESSAGE_TOO_LARGE": MessageTooLargeError,
    "TOO_MANY_GROUPS": MessageTooLargeError,
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "QUOTA_EXCEEDED": TooBusyError,
    "LAYOUT_MISMATCH": LayoutMismatchError,
    "PROFILE_NOT_FOUND": ProfileNotFoundError,
    "VERSION_NOT_FOUND": VersionNotFoundError,
    "RUN_NOT_FOUND": RunNotFoundError,
    "POLICY_NOT_FOUND": PolicyNotFoundError,
    "POLICY_MOVED": PolicyMovedError,
    "ALIAS_MOVED": AliasMovedError,
    "VERSION_IN_USE": VersionInUseError,
    "REQUEST_REUSED": InvalidRequestError,
    "AUDIT_UNAVAILABLE": UnavailableError,
    "STORE_UNAVAILABLE": UnavailableError,
    "PROFILE_DAMAGED": InternalServiceError,
    "PROFILE_TOO_NEW": InternalServiceError,
    "TOO_BUSY": TooBusyError,
    "STOPPING": UnavailableError,
    "STORE_DAMAGED": InternalServiceError,
    "INTERNAL": InternalServiceError,
}
