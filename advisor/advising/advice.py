"""One run's advice: a profile resolved and a layout mapped once, then an answer a measurement.

This is what runs behind the RPC and, without any server, in process. It holds no state between
measurements but what it was built from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.advising.mismatch_warnings import (
    Difference,
    Training,
    differences,
    nearest_roles_used,
    warmup,
)
from advisor.policy import (
    DepthRule,
    InvalidValueError,
    Layout,
    LayoutMapping,
    Measurement,
    Measurements,
    Policy,
    Profile,
    Recommendation,
    Recommendations,
    Reference,
    check_coherences,
    map_layout,
    recommend_all,
    refusal,
)
from advisor.registry.profiles import Provenance, VersionInfo
from advisor.registry.resource_names import ProfileReference, RunName


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A version that is ready to be asked.

    Attributes:
        info: What identifies it.
        profile: Its rates and rules.
        reference: Reads its rates at any step.
        provenance: Where it comes from.
        policy_name: The stored policy that its runs follow; empty: it has rules of its own.
    """

    info: VersionInfo
    profile: Profile
    reference: Reference
    provenance: Provenance = field(default_factory=Provenance)
    policy_name: str = ""

    @property
    def names(self) -> int:
        """Number of names in its layout, those of frozen parameters too."""
        return len(self.profile.layout) + len(self.profile.layout.frozen_names)


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """What a profile's name stands for.

    Attributes:
        loaded: The version.
        stale: Whether the name was resolved from memory because the store is away.
        policy: The rules of the stored policy that it names, and that policy's name with its
            version; None: it names none.
    """

    loaded: LoadedProfile
    stale: bool = False
    policy: tuple[Policy, str] | None = None

    def rules(self, opening: Opening) -> Policy:
        """Return the rules for a run: its own, else the stored policy's, else the profile's."""
        if opening.policy:
            return opening.policy
        return self.policy[0] if self.policy else self.loaded.profile.policy


class ProfileSource(Protocol):
    """Where profiles come from."""

    async def resolve(self, reference: ProfileReference) -> ResolvedProfile:
        """Return the version that a reference names, ready to be asked."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What a run wants to be compared with.

    Attributes:
        profile: The profile.
        layout: The model's groups.
        run: Under which name it is stored; None: not at all.
        policy: Rules instead of the profile's own, or None.
        total_steps: Planned steps; 0: unknown.
        observe_only: Whether the run applies no multiplier.
        training: What else is known about it, for warnings.
    """

    profile: ProfileReference
    layout: Layout
    run: RunName | None = None
    policy: Policy | None = None
    total_steps: int = 0
    observe_only: bool = False
    training: Training = field(default_factory=Training)


class Advice:
    """Answers the measurements of one run.

    Args:
        resolved: The profile.
        opening: What the run said at its start.
        mapping: Its layout mapped onto the profile's under its rules, if that was done before.

    Attributes:
        info: The version that the advice comes from.
        version_name: Its resource name.
        stale: Whether its name was resolved from memory because the store is away.
        layout: The run's layout.
        base_layout: The profile's layout.
        mapping: The one mapped onto the other.
        policy_name: The stored policy that is followed, with its version; empty: none.
        plan: Equal for runs that share profile, mapping and rules, as long as both live.
        refusal: Why there is no advice for this layout, or None.
    """

    def __init__(
        self, resolved: ResolvedProfile, opening: Opening, mapping: LayoutMapping | None = None
    ) -> None:
        loaded = resolved.loaded
        self.info = loaded.info
        self.version_name = str(loaded.info.reference)
        self.stale = resolved.stale
        self.layout = opening.layout
        self.base_layout = loaded.profile.layout
        self._opening = opening
        self._profile = loaded.profile
        self._provenance = loaded.provenance
        self._reference = loaded.reference
        self._policy = resolved.rules(opening)
        self.policy_name = resolved.policy[1] if resolved.policy and not opening.policy else ""
        try:
            check_coherences(self._policy, loaded.profile.coherences)
        except InvalidValueError as error:
            if opening.policy:
                raise
            raise InvalidValueError(
                "profile", f"in its policy {self.policy_name} the depth rule {error.description}"
            ) from None
        self.mapping: LayoutMapping = mapping or map_layout(
            opening.layout,
            loaded.profile.layout,
            self._policy.depth_rule,
            aliases=loaded.profile.aliases,
            unmatched_rule=self._policy.unmatched_rule,
        )
        # Runs with the same one can be answered together: what it stands for is theirs too.
        self.plan: tuple[int, ...] = (id(loaded.reference), id(self.mapping), id(self._policy))
        self.refusal = refusal(opening.layout, self.mapping, self._policy.unmatched_rule)

    def recommend(self, measurement: Measurement) -> Recommendation:
        """Return the multipliers for one measurement.

        Raises:
            LayoutMismatchError: The layout does not map onto the profile.
            InvalidValueError: The measurement is out of range.
        """
        return self.recommend_all(self.checked(measurement)).row(0)

    def checked(self, measurement: Measurement) -> Measurements:
        """Return a measurement as the only row, if there is advice for it.

        Raises:
            LayoutMismatchError: The layout does not map onto the profile.
            InvalidValueError: The measurement is out of range.
        """
        if self.refusal is not None:
            raise self.refusal
        measurement.check(len(self.layout))
        return Measurements.of([measurement])

    def recommend_all(self, measured: Measurements) -> Recommendations:
        """Return the multipliers for measurements, checked, of runs with this one's plan.

        Raises:
            InvalidValueError: Alignment by progress lacks a run's planned steps.
        """
        return recommend_all(self._profile, self._reference, self.mapping, self._policy, measured)

    def first_depth_factors(self) -> NDArray[np.float64]:
        """Return each group's depth factor at the profile's first point, shape [groups].

        Only under the rule ``measured`` does it depend on the rates; else all count as equal.
        """
        step = float(self._profile.steps[0])
        rates = self._reference.at(step)
        if self._policy.depth_rule is DepthRule.MEASURED and rates.any():
            rates[rates == 0] = np.median(rates[rates > 0])
        else:
            rates = np.ones_like(rates)
        references = self.mapping.references(rates, self._reference.coherences_at(step))
        return self.mapping.depth_factors(references, rates)

    def differences(self, measurement: Measurement, profile_step: float) -> list[Difference]:
        """Return what differs between the run and the profile, in words.

        Args:
            measurement: The measurement; the first of a run also brings what its opening shows.
            profile_step: The step of the profile that it is compared with.
        """
        found = warmup(self._profile, profile_step, self._opening.training, measurement)
        if measurement.interval_steps == 0:
            found += differences(
                self._profile.base_learning_rate, self._provenance, self._opening.training
            )
            found += nearest_roles_used(self.layout, self.base_layout, self.mapping)
        return found
