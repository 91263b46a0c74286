"""Advice without any server: one person, one machine, a profile file.

Implements the interface :class:`fslr.Advisor` with the very code that runs behind the RPC: the same
messages go in, the same come out, bit for bit. Needs nothing beyond the base installation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from advisor.advising.advice import Advice, LoadedProfile, Opening, ResolvedProfile
from advisor.policy import InvalidValueError, Reference
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileReference
from advisor.store.codec import encode
from advisor.wire import answer, content_from, mapping_to, opening_from
from advisor.wire.errors import error_mapping_of, metadata_of
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2, profile_service_pb2
from fslr.errors import BY_REASON
from fslr.profile_files import load_profile

_NEVER = datetime.fromtimestamp(0, UTC)


@contextmanager
def _told_as_service_errors() -> Iterator[None]:
    """Raise what a client of the service would see; defects pass as they are."""
    try:
        yield
    except Exception as error:
        verdict = error_mapping_of(error)
        kind = BY_REASON[verdict.reason]
        if verdict.reason == "INTERNAL":
            raise
        raise kind(str(error), verdict.reason, metadata_of(error)) from error


class InProcessSession:
    """A run advised in this process."""

    def __init__(self, profile: LoadedProfile, message: pb.RunOpening) -> None:
        with _told_as_service_errors():
            self._opening: Opening = opening_from(message)
            try:
                self._advice = Advice(ResolvedProfile(profile), self._opening)
            except InvalidValueError as error:
                raise error.under("opening") from None

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        Raises:
            LayoutMismatchError: Groups have no counterpart in the profile.
            InvalidRequestError: The measurement is out of range.
        """
        with _told_as_service_errors():
            return answer(self._advice, self._opening, measurement)

    def close(self) -> None:
        """End the session; there is nothing to release."""


class InProcessAdvisor:
    """Gives recommendations from one profile, in this process.

    Every opening is answered from this profile, under whatever name it asks for one.

    Args:
        content: What the profile says.

    Raises:
        InvalidRequestError: The content is out of range.
    """

    def __init__(self, content: profile_pb2.ProfileContent) -> None:
        with _told_as_service_errors():
            domain = content_from(content)
            profile = domain.profile()
            reference = ProfileReference.parse("profile", "projects/default/profiles/in-process")
            info = VersionInfo(reference.name, 1, encode(domain).digest, _NEVER)
            if domain.header.policy_name:
                raise InvalidValueError(
                    "policy_name",
                    f"{domain.header.policy_name} lives in the service; write its rules into the "
                    "file's policy (`advisor policy show` prints them)",
                )
        self._profile = LoadedProfile(info, profile, Reference(profile), domain.header.provenance)

    @classmethod
    def from_file(cls, path: str | Path) -> InProcessAdvisor:
        """Read the profile from a JSON file.

        Raises:
            ProfileFileError: The file cannot be read, or is no profile.
        """
        return cls(load_profile(path))

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a run's layout maps onto the profile, or why the run would be refused.

        Raises:
            InvalidRequestError: The opening is out of range.
        """
        with _told_as_service_errors():
            return mapping_to(Advice(ResolvedProfile(self._profile), opening_from(opening)))

    def open_run(self, opening: pb.RunOpening) -> InProcessSession:
        """Begin a run.

        Raises:
            InvalidRequestError: The opening is out of range.
        """
        return InProcessSession(self._profile, opening)
