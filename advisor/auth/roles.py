"""Roles, and the grants of authenticated callers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from advisor.errors import PermissionDeniedError


class Role(IntEnum):
    """What a caller may do in its project; each role includes the ones before it."""

    VIEWER = 1
    """May read profiles, policies, runs and the audit log."""

    TRAINER = 2
    """May request recommendations, which includes reporting measurements."""

    OPERATOR = 3
    """May change profiles, aliases and policies, and delete runs."""

    @property
    def word(self) -> str:
        """The role's name in lower case."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Grant:
    """An authenticated caller and what it may do.

    Attributes:
        name: The name of the token or the certificate.
        proof: What authenticated the caller, such as ``token 3f2a9c01b2d4``; unique.
        project: The project that the grant is for.
        role: What the caller may do in that project.
        expire_time: When the grant expires, UTC; None: never.
    """

    name: str
    proof: str
    project: str
    role: Role
    expire_time: datetime | None = None

    def __str__(self) -> str:
        """Return the caller's name and proof, as in the audit log."""
        return f"{self.name} ({self.proof})"

    def check(self, needed: Role, projects: frozenset[str]) -> None:
        """Raise an error unless the grant permits a request.

        Args:
            needed: The lowest role that may make the request.
            projects: The projects that the request names.

        Raises:
            PermissionDeniedError: The role is too low, or the grant is for a different project.
        """
        if self.role < needed:
            raise PermissionDeniedError(
                f"{self} is a {self.role.word}, but this call needs the role "
                f"{' or '.join(role.word for role in Role if role >= needed)}; use a token with "
                f"that role (`advisor token create --role {needed.word}`)"
            )
        for project in sorted(projects - {self.project}):
            raise PermissionDeniedError(
                f"{self} is for project {self.project!r}, not for {project!r}; name "
                f"projects/{self.project}/..., or use a token for the other project"
            )
