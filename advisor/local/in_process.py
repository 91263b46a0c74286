"""Advice from a profile file without any server, in the training process.

Implements the protocol :class:`fslr.Advisor` with the code that runs behind the RPC. Messages are
neither serialized nor parsed; answers and errors are identical, bit for bit. Needs only the base
installation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.policy import InvalidValueError
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileReference
from advisor.store.codec import encode
from advisor.wire import (
    answer,
    content_from_proto,
    first_answer,
    mapping_to_proto,
    opening_from_proto,
)
from advisor.wire.errors import DEFECT, error_mapping_of, metadata_of
from advisor.wire.field_paths import field_path
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2, profile_service_pb2
from fslr.errors import BY_REASON
from fslr.profile_files import load_profile

_NEVER = datetime.fromtimestamp(0, UTC)


@contextmanager
def _as_client_errors() -> Iterator[None]:
    """Raise the exceptions that a client of the service would see; defects pass unchanged."""
    try:
        yield
    except Exception as error:
        mapping = error_mapping_of(error)
        if mapping is DEFECT:
            raise
        kind = BY_REASON[mapping.reason]
        raise kind(str(error), mapping.reason, metadata_of(error)) from error


class InProcessSession:
    """A run advised in this process.

    Args:
        profile: The profile.
        message: The run's opening.

    Raises:
        InvalidRequestError: The opening is out of range.
    """

    def __init__(self, profile: LoadedProfile, message: pb.RunOpening) -> None:
        with _as_client_errors():
            self._opening: Opening = opening_from_proto(message)
            with field_path("opening"):
                self._advice = Advice(ResolvedProfile(profile), self._opening)

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        Raises:
            LayoutMismatchError: Groups have no counterpart in the profile.
            InvalidRequestError: The measurement is out of range.
        """
        with _as_client_errors():
            return answer(self._advice, self._opening, measurement)

    def start(self) -> pb.RecommendLRResponse:
        """Return what is known before the first step: priors, and a recipe's factors.

        Raises:
            LayoutMismatchError: Groups have no counterpart in the profile.
        """
        with _as_client_errors():
            return first_answer(self._advice)

    def close(self) -> None:
        """End the session; there is nothing to release."""


class InProcessAdvisor:
    """Gives recommendations from one profile, in this process.

    Every run uses this profile, whatever profile name its opening gives.

    Args:
        content: The profile's content.

    Raises:
        InvalidRequestError: The content is out of range, or it names a stored policy.
    """

    def __init__(self, content: profile_pb2.ProfileContent) -> None:
        with _as_client_errors():
            domain = content_from_proto(content)
            if domain.header.policy_name:
                raise InvalidValueError(
                    "policy_name",
                    f"{domain.header.policy_name} is stored in the service; write its rules into "
                    "the file's policy (`advisor policy show` prints them)",
                )
            reference = ProfileReference.parse("profile", "projects/default/profiles/in-process")
            # Answers carry the digest of the profile's content, here and from the service; by the
            # contract it is the SHA-256 of the encoded content, so that is encoded once.
            info = VersionInfo(reference.name, 1, encode(domain).digest, _NEVER)
            self._profile = LoadedProfile.of(info, domain)

    @classmethod
    def from_file(cls, path: str | Path) -> InProcessAdvisor:
        """Read the profile from a JSON file.

        Raises:
            ProfileFileError: The file cannot be read, or is not a valid profile.
        """
        return cls(load_profile(path))

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a run's layout maps onto the profile, and why the run would be refused, if so.

        Raises:
            InvalidRequestError: The opening is out of range.
        """
        with _as_client_errors():
            return mapping_to_proto(
                Advice(ResolvedProfile(self._profile), opening_from_proto(opening))
            )

    def open_run(self, opening: pb.RunOpening) -> InProcessSession:
        """Start a run.

        Raises:
            InvalidRequestError: The opening is out of range.
        """
        return InProcessSession(self._profile, opening)
