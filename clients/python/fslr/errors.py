"""The exceptions of this package.

::

    FslrError
    |- AttachError              the training job cannot be attached; raised before its first step
    |- MeasurementError         the model cannot be measured
    |- ProfileFileError         a profile file cannot be read or written
    |- CertificateError         TLS files cannot be used
    |- TokenError               a token cannot be used
    `- ServiceError             the advisor refused a call, or could not answer it
       |- InvalidRequestError   a value in the request is not valid
       |- NotFoundError
       |  |- ProfileNotFoundError
       |  |- VersionNotFoundError
       |  |- RunNotFoundError
       |  |- PolicyNotFoundError
       |  `- RecipeNotFoundError
       |- LayoutMismatchError   groups of the model match no group of the profile
       |- AliasMovedError       the alias was moved in the meantime
       |- PolicyMovedError      the policy was changed in the meantime
       |- PolicyInUseError      profiles name the policy
       |- RecipeMovedError      the recipe was changed in the meantime
       |- RecipeInUseError      policies or profiles name the recipe
       |- VersionInUseError     an alias names the version
       |- MessageTooLargeError
       |- AuthenticationError   the token is missing or not valid
       |- PermissionDeniedError the token's role or project does not allow the call
       |- UnavailableError      the advisor or its store does not answer
       |  |- TooBusyError       a limit on concurrent calls, or a quota, is reached
       |  `- DeadlineExceededError
       |- UnsupportedMethodError the service is older than this client
       `- InternalServiceError  a defect of the service, or damaged data
"""

from __future__ import annotations

from collections.abc import Mapping

ERROR_DOMAIN = "fslr.advisor"


class FslrError(Exception):
    """The base of this package's exceptions."""


class AttachError(FslrError):
    """The training job cannot be attached; raised before its first step."""


class MeasurementError(FslrError):
    """The model cannot be measured."""


class ProfileFileError(FslrError):
    """A profile file cannot be read or written."""


class CertificateError(FslrError):
    """TLS files cannot be used."""


class TokenError(FslrError):
    """A token cannot be used."""


class ServiceError(FslrError):
    """The advisor refused a call, or could not answer it.

    Attributes:
        reason: A name of ``fslr.advisor.v1.ErrorReason`` without its prefix, such as
            ``PROFILE_NOT_FOUND``; these never change. Empty if the advisor could not be reached.
        metadata: Details for programs, by key.
    """

    def __init__(
        self, message: str, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidRequestError(ServiceError):
    """A value in the request is not valid."""


class NotFoundError(ServiceError):
    """The resource does not exist."""


class ProfileNotFoundError(NotFoundError):
    """The profile does not exist."""


class VersionNotFoundError(NotFoundError):
    """The profile has no such version or alias."""


class RunNotFoundError(NotFoundError):
    """The run does not exist."""


class LayoutMismatchError(ServiceError):
    """Groups of the model match no group of the profile."""


class AliasMovedError(ServiceError):
    """The alias was moved in the meantime."""


class PolicyNotFoundError(NotFoundError):
    """The policy, or that version of it, does not exist."""


class PolicyInUseError(ServiceError):
    """Profiles name the policy to delete."""


class PolicyMovedError(ServiceError):
    """The policy was changed in the meantime."""


class RecipeNotFoundError(NotFoundError):
    """The recipe, or that version of it, does not exist."""


class RecipeMovedError(ServiceError):
    """The recipe was changed in the meantime."""


class RecipeInUseError(ServiceError):
    """Policies or profiles name the recipe to delete."""


class VersionInUseError(ServiceError):
    """An alias names the version."""


class MessageTooLargeError(ServiceError):
    """The message is larger than the advisor accepts."""


class AuthenticationError(ServiceError):
    """The token is missing or not valid."""


class PermissionDeniedError(ServiceError):
    """The token's role or project does not allow the call."""


class UnavailableError(ServiceError):
    """The advisor or its store does not answer."""


class TooBusyError(UnavailableError):
    """A limit on concurrent calls, or a quota, is reached; try again later."""


class DeadlineExceededError(UnavailableError):
    """The advisor did not answer in time."""


class UnsupportedMethodError(ServiceError):
    """The service does not have the method: it is older than this client."""


class InternalServiceError(ServiceError):
    """The service has a defect, or its data is damaged."""


# The reasons that the service gives, and the exceptions that they are raised as.
BY_REASON: dict[str, type[ServiceError]] = {
    "INVALID_VALUE": InvalidRequestError,
    "OPENING_MISSING": InvalidRequestError,
    "OPENING_REPEATED": InvalidRequestError,
    "MESSAGE_UNREADABLE": InvalidRequestError,
    "MESSAGE_TOO_LARGE": MessageTooLargeError,
    "TOO_MANY_GROUPS": MessageTooLargeError,
    "TOO_MANY_METRICS": InvalidRequestError,
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "QUOTA_EXCEEDED": TooBusyError,
    "LAYOUT_MISMATCH": LayoutMismatchError,
    "PROFILE_NOT_FOUND": ProfileNotFoundError,
    "VERSION_NOT_FOUND": VersionNotFoundError,
    "RUN_NOT_FOUND": RunNotFoundError,
    "POLICY_NOT_FOUND": PolicyNotFoundError,
    "POLICY_IN_USE": PolicyInUseError,
    "POLICY_MOVED": PolicyMovedError,
    "RECIPE_NOT_FOUND": RecipeNotFoundError,
    "RECIPE_IN_USE": RecipeInUseError,
    "RECIPE_MOVED": RecipeMovedError,
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
