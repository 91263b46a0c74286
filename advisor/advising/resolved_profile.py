"""A profile as runs use it: the version that its name resolves to, its reference and the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

from advisor.advising.opening import Opening
from advisor.policy import Policy, Profile, RecordingFlaw, Reference, recording_flaws
from advisor.registry.profiles import ProfileContent, Provenance, VersionInfo
from advisor.registry.resource_names import ProfileReference, RecipeReference

_MAX_SMOOTHED = 64  # smoothed references, over all profiles
_MAX_RULES = 256  # policies with a different recipe


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A profile version with everything that recommendations need.

    Attributes:
        info: Name, version and digest.
        profile: The rates and the rules.
        reference: Reads the rates at any step.
        provenance: How the profile was recorded.
        policy_name: The stored policy that its runs follow; empty: the profile's own rules.
        flaws: What is doubtful about its recording.
    """

    info: VersionInfo
    profile: Profile
    reference: Reference
    provenance: Provenance = field(default_factory=Provenance)
    policy_name: str = ""
    flaws: Sequence[RecordingFlaw] = ()

    @classmethod
    def of(cls, info: VersionInfo, content: ProfileContent) -> LoadedProfile:
        """Return a profile version with what its recommendations need, computed once.

        Raises:
            InvalidValueError: A value is out of its range.
        """
        profile, header = content.profile(), content.header
        return cls(
            info,
            profile,
            Reference(profile),
            header.provenance,
            header.policy_name,
            recording_flaws(profile),
        )

    def smoothed(self, half_width: float) -> Reference:
        """Return the reference with smoothed rates, the same object for the same width.

        Args:
            half_width: Half the width of the window, see :class:`Policy`; 0: not smoothed.
        """
        return _smoothed(self.profile, half_width) if half_width else self.reference

    @property
    def name_count(self) -> int:
        """Number of names in its layout, including those of frozen parameters."""
        return len(self.profile.layout) + len(self.profile.layout.frozen_names)


@lru_cache(maxsize=_MAX_SMOOTHED)
def _smoothed(profile: Profile, half_width: float) -> Reference:
    return Reference(profile, smoothing=half_width)


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """What a profile's name resolves to.

    Attributes:
        loaded: The version.
        stale: Whether the name was resolved from the cache because the store is unavailable.
        policy: The rules of the stored policy that the profile names, and that policy's name with
            its version; None: the profile names no policy.
    """

    loaded: LoadedProfile
    stale: bool = False
    policy: tuple[Policy, str] | None = None

    def rules(self, opening: Opening) -> Policy:
        """Return the rules for a run: its own, else the stored policy, else the profile's rules.

        A recipe of the opening takes the place of theirs.
        """
        found = opening.policy or (self.policy[0] if self.policy else self.loaded.profile.policy)
        return _with_recipe(found, opening.recipe) if opening.recipe else found

    def recipe(self, opening: Opening) -> RecipeReference | None:
        """Return the recipe that a run follows; None: none.

        Raises:
            InvalidValueError: It is not the name of a recipe, or belongs to a different project.
        """
        name = self.rules(opening).recipe
        if not name:
            return None
        field_name = "policy.recipe" if opening.policy and not opening.recipe else "recipe"
        reference = RecipeReference.parse(field_name, name)
        reference.check_project(field_name, opening.profile.name.project)
        return reference


@lru_cache(maxsize=_MAX_RULES)
def _with_recipe(policy: Policy, recipe: str) -> Policy:
    """Return a policy with a different recipe, the same object for equal arguments."""
    return replace(policy, recipe=recipe)


class ProfileSource(Protocol):
    """Where profiles come from."""

    async def resolve(self, reference: ProfileReference) -> ResolvedProfile:
        """Return the version that a reference names.

        Raises:
            NotFoundError: There is no such profile, version or alias.
        """
        ...
