"""The training side of learning-rate transfer: measure unit rates, ask an advisor, scale.

Importing this package loads grpcio, protobuf and numpy at most; ``fslr.torch`` adds PyTorch.
"""

from fslr.client.advisor_client import AdvisorClient
from fslr.client.certificates import CertificateFiles
from fslr.errors import (
    AliasMovedError,
    AttachError,
    AuthenticationError,
    CertificateError,
    DeadlineExceededError,
    FslrError,
    InternalServiceError,
    InvalidRequestError,
    LayoutMismatchError,
    MeasurementError,
    MessageTooLargeError,
    NotFoundError,
    PermissionDeniedError,
    PolicyMovedError,
    PolicyNotFoundError,
    ProfileFileError,
    ProfileNotFoundError,
    RunNotFoundError,
    ServiceError,
    TokenError,
    TooBusyError,
    UnavailableError,
    VersionInUseError,
    VersionNotFoundError,
)
from fslr.profile_files import load_profile, save_layout, save_profile
from fslr.protocols import Advisor, RunSession

__all__ = [
    "Advisor",
    "AdvisorClient",
    "AliasMovedError",
    "AttachError",
    "AuthenticationError",
    "CertificateError",
    "CertificateFiles",
    "DeadlineExceededError",
    "FslrError",
    "InternalServiceError",
    "InvalidRequestError",
    "LayoutMismatchError",
    "MeasurementError",
    "MessageTooLargeError",
    "NotFoundError",
    "PermissionDeniedError",
    "PolicyMovedError",
    "PolicyNotFoundError",
    "ProfileFileError",
    "ProfileNotFoundError",
    "RunNotFoundError",
    "RunSession",
    "ServiceError",
    "TokenError",
    "TooBusyError",
    "UnavailableError",
    "VersionInUseError",
    "VersionNotFoundError",
    "load_profile",
    "save_layout",
    "save_profile",
]
