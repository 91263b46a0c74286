"""Resource names: ``projects/{project}/profiles/{profile}@{suffix}`` and runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from advisor.policy import InvalidValueError, shown

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ID_RULE = "1 to 63 characters of [a-z0-9-], beginning with a letter"
_MAX_CACHED = 4_096  # parsed names, of at most about 200 characters; invalid ones are not cached
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def check_id(field: str, what: str, value: str) -> str:
    """Return ``value`` if it is an identifier.

    Raises:
        InvalidValueError: The value is not an identifier.
    """
    if not _ID.fullmatch(value):
        raise InvalidValueError(field, f"{what} {shown(value)} is not an identifier: {_ID_RULE}")
    return value


def _segments(field: str, value: str, pattern: str, what: str) -> list[str]:
    """Split ``value`` along a pattern such as ``projects/{project}/runs/{run}``."""
    parts, wanted = value.split("/"), pattern.split("/")
    fits = len(parts) == len(wanted) and all(
        part == want for part, want in zip(parts, wanted, strict=True) if not want.startswith("{")
    )
    if not fits:
        raise InvalidValueError(
            field, f"{shown(value)} is not a {what} name; it must read {pattern}"
        )
    return [part for part, want in zip(parts, wanted, strict=True) if want.startswith("{")]


def parse_project(field: str, value: str) -> str:
    """Parse ``projects/{project}``, and return the project's identifier."""
    (project,) = _segments(field, value, "projects/{project}", "project")
    return check_id(field, "project", project)


@dataclass(frozen=True, slots=True, order=True)
class ProfileName:
    """A profile, without a version.

    Attributes:
        project: Identifier of the project.
        profile: Identifier of the profile in it.
    """

    project: str
    profile: str

    def __str__(self) -> str:
        """Return the resource name."""
        return f"projects/{self.project}/profiles/{self.profile}"


@dataclass(frozen=True, slots=True)
class ProfileReference:
    """A version of a profile: a number, an alias, or the latest (empty suffix).

    Attributes:
        name: The profile.
        suffix: A version number, an alias, or empty.
    """

    name: ProfileName
    suffix: str = ""

    @classmethod
    @lru_cache(_MAX_CACHED)
    def parse(cls, field: str, value: str) -> ProfileReference:
        """Parse ``projects/{project}/profiles/{profile}`` with or without ``@{suffix}``.

        Raises:
            InvalidValueError: The value is not such a name.
        """
        path, at, suffix = value.partition("@")
        project, profile = _segments(
            field, path, "projects/{project}/profiles/{profile}", "profile"
        )
        name = ProfileName(check_id(field, "project", project), check_id(field, "profile", profile))
        if at and not _VERSION.fullmatch(suffix):
            check_id(field, "alias", suffix)
        return cls(name, suffix)

    @property
    def version(self) -> int | None:
        """The version number, or None where the suffix is an alias or empty."""
        return int(self.suffix) if self.suffix.isdigit() else None

    def __str__(self) -> str:
        """Return the resource name with its suffix."""
        return f"{self.name}@{self.suffix}" if self.suffix else str(self.name)


def parse_profile_name(field: str, value: str) -> ProfileName:
    """Parse a profile's name, which must not have a suffix."""
    reference = ProfileReference.parse(field, value)
    if reference.suffix:
        raise InvalidValueError(
            field, f"{shown(value)} names a version; give only the profile: {reference.name}"
        )
    return reference.name


@dataclass(frozen=True, slots=True)
class RunName:
    """A run.

    Attributes:
        project: Identifier of the project.
        run: Identifier of the run in it.
    """

    project: str
    run: str

    @classmethod
    @lru_cache(_MAX_CACHED)
    def parse(cls, field: str, value: str) -> RunName:
        """Parse ``projects/{project}/runs/{run}``.

        Raises:
            InvalidValueError: The value is not such a name.
        """
        project, run = _segments(field, value, "projects/{project}/runs/{run}", "run")
        return cls(check_id(field, "project", project), check_id(field, "run", run))

    def __str__(self) -> str:
        """Return the resource name."""
        return f"projects/{self.project}/runs/{self.run}"


@dataclass(frozen=True, slots=True)
class PolicyReference:
    """A version of a policy.

    Attributes:
        project: Identifier of the project.
        policy: Identifier of the policy in it.
        version: The version number; 0: the latest.
    """

    project: str
    policy: str
    version: int = 0

    @classmethod
    def parse(cls, field: str, value: str) -> PolicyReference:
        """Parse ``projects/{project}/policies/{policy}`` with or without ``@{version}``.

        Raises:
            InvalidValueError: The value is not such a name.
        """
        path, at, version = value.partition("@")
        project, policy = _segments(field, path, "projects/{project}/policies/{policy}", "policy")
        check_id(field, "project", project)
        check_id(field, "policy", policy)
        if at and not _VERSION.fullmatch(version):
            raise InvalidValueError(
                field,
                f"{shown(version)} is not a version number of at least 1",
            )
        return cls(project, policy, int(version or 0))

    def __str__(self) -> str:
        """Return the resource name, with the version if one is given."""
        name = f"projects/{self.project}/policies/{self.policy}"
        return f"{name}@{self.version}" if self.version else name


@dataclass(frozen=True, slots=True)
class RecipeReference:
    """A version of a stored recipe, or a recipe that comes with the service.

    Attributes:
        project: Identifier of the project; empty: the recipe comes with the service.
        recipe: Identifier of the recipe.
        version: The version number; 0: the latest, or it comes with the service.
    """

    project: str
    recipe: str
    version: int = 0

    @classmethod
    @lru_cache(_MAX_CACHED)
    def parse(cls, field: str, value: str) -> RecipeReference:
        """Parse ``projects/{project}/recipes/{recipe}`` with or without ``@{version}``.

        A name without slashes is that of a recipe that comes with the service.

        Raises:
            InvalidValueError: The value is not such a name.
        """
        path, at, version = value.partition("@")
        if "/" not in path:
            if at:
                raise InvalidValueError(
                    field,
                    f"{shown(value)} names a version, but recipes that come with the service have "
                    "none; leave it out, or give projects/{project}/recipes/{recipe}@{version}",
                )
            return cls("", check_id(field, "recipe", path))
        project, recipe = _segments(field, path, "projects/{project}/recipes/{recipe}", "recipe")
        check_id(field, "project", project)
        check_id(field, "recipe", recipe)
        if at and not _VERSION.fullmatch(version):
            raise InvalidValueError(
                field, f"{shown(version)} is not a version number of at least 1"
            )
        return cls(project, recipe, int(version or 0))

    def check_project(self, field: str, project: str) -> None:
        """Refuse a recipe that is stored in a different project.

        Args:
            field: Where the name was given.
            project: The project that uses the recipe.

        Raises:
            InvalidValueError: The recipe belongs to a different project.
        """
        if self.project and self.project != project:
            raise InvalidValueError(
                field,
                f"{shown(str(self))} belongs to a different project than {shown(project)}; store "
                f"it there too: projects/{project}/recipes/{self.recipe}",
            )

    def __str__(self) -> str:
        """Return the resource name, with the version if one is given."""
        if not self.project:
            return self.recipe
        name = f"projects/{self.project}/recipes/{self.recipe}"
        return f"{name}@{self.version}" if self.version else name
