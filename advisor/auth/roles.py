"""Who may do what: roles, and what a caller proved to have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from advisor.errors import PermissionDeniedError


class Role(IntEnum):
    """What a caller may do in its project; each role may do what the former ones may."""

    VIEWER = 1
    """Reads profiles, policies, runs and the audit."""

    TRAINER = 2
    """Asks for recommendations, and so reports measurements."""

    OPERATOR = 3
    """Writes profiles, aliases and policies."""

    @property
    def word(self) -> str:
        """The role's name as people write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller proved to have.

    Attributes:
        name: Whose it is, in the words of whoever granted it.
        proof: What proved it, such as ``token 3f2a9c01b2d4``; no other grant has the same.
        project: The one project that it is for.
        role: What may be done there.
        expire_time: When it ends, UTC; None: never.
    """

    name: str
    proof: str
    project: str
    role: Role
    expire_time: datetime | None = None

    def __str__(self) -> str:
        """Return how the audit names the caller."""
        return f"{self.name} ({self.proof})"

    def check(self, needed: Role, projects: frozenset[str]) -> None:
        """Raise unless the grant is enough.

        Args:
            needed: The least role that may do what is asked.
            projects: The projects that the request names.

        Raises:
            PermissionDeniedError: The role is too low, or a project is not the grant's.
        """
        if self.role < needed:
            raise PermissionDeniedError(
                f"{self} is a {self.role.word}, and this call needs a "
                f"{' or '.join(role.word for role in Role if role >= needed)}; use a token of that "
                f"role (`advisor token create --role {needed.word}`)"
            )
        for project in sorted(projects - {self.project}):
            raise PermissionDeniedError(
                f"{self} is for project {self.project!r}, not for {project!r}; name "
                f"projects/{self.project}/..., or use a token of the other project"
            )
