"""The client of learning-rate transfer: measures unit rates, asks an advisor, scales steps.

Importing this package loads only protobuf and numpy. ``AdvisorClient`` loads grpcio at its first
use, and ``fslr.torch`` needs PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    PolicyInUseError,
    PolicyMovedError,
    PolicyNotFoundError,
    ProfileFileError,
    ProfileNotFoundError,
    RecipeInUseError,
    RecipeMovedError,
    RecipeNotFoundError,
    RunNotFoundError,
    ServiceError,
    TokenError,
    TooBusyError,
    UnavailableError,
    UnsupportedMethodError,
    VersionInUseError,
    VersionNotFoundError,
)
from fslr.profile_files import load_profile, save_layout, save_profile
from fslr.protocols import Advisor, MetricSession, RunSession, StartingSession
from fslr.training.estimate import RateEstimate
from fslr.training.events import (
    AdviceAdopted,
    Event,
    Failed,
    Listener,
    Measured,
    Started,
    StepPart,
    Warned,
)
from fslr.training.group_advice import GroupAdvice
from fslr.training.recording import Provenance
from fslr.training.run_info import RunInfo

if TYPE_CHECKING:
    from fslr.client.advisor_client import AdvisorClient

__all__ = [
    "AdviceAdopted",
    "Advisor",
    "AdvisorClient",
    "AliasMovedError",
    "AttachError",
    "AuthenticationError",
    "CertificateError",
    "CertificateFiles",
    "DeadlineExceededError",
    "Event",
    "Failed",
    "FslrError",
    "GroupAdvice",
    "InternalServiceError",
    "InvalidRequestError",
    "LayoutMismatchError",
    "Listener",
    "Measured",
    "MeasurementError",
    "MessageTooLargeError",
    "MetricSession",
    "NotFoundError",
    "PermissionDeniedError",
    "PolicyInUseError",
    "PolicyMovedError",
    "PolicyNotFoundError",
    "ProfileFileError",
    "ProfileNotFoundError",
    "Provenance",
    "RateEstimate",
    "RecipeInUseError",
    "RecipeMovedError",
    "RecipeNotFoundError",
    "RunInfo",
    "RunNotFoundError",
    "RunSession",
    "ServiceError",
    "Started",
    "StartingSession",
    "StepPart",
    "TokenError",
    "TooBusyError",
    "UnavailableError",
    "UnsupportedMethodError",
    "VersionInUseError",
    "VersionNotFoundError",
    "Warned",
    "load_profile",
    "save_layout",
    "save_profile",
]


def __getattr__(name: str) -> Any:
    """Load the gRPC client at its first use (PEP 562).

    Raises:
        AttributeError: The package has no attribute of this name.
    """
    if name == "AdvisorClient":
        return import_module("fslr.client.advisor_client").AdvisorClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
