"""What a run sends before its first measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from advisor.advising.mismatch_warnings import Training
from advisor.policy import Layout, Policy
from advisor.recipes import Ratio
from advisor.registry.resource_names import ProfileReference, RunName


@dataclass(frozen=True, slots=True)
class Opening:
    """What a run sends before its first measurement.

    Attributes:
        profile: The profile to compare with.
        layout: The model's groups.
        run: The name under which the run is stored; None: it is not stored.
        policy: Rules that replace the profile's own, or None.
        total_steps: Planned steps; 0: unknown.
        observe_only: Whether the run only observes and applies no multipliers.
        training: Properties of the training, for warnings.
        recipe: A recipe that takes the place of the policy's; empty: the policy's.
        ratios: How much larger the run is than the base in what layouts do not show.
    """

    profile: ProfileReference
    layout: Layout
    run: RunName | None = None
    policy: Policy | None = None
    total_steps: int = 0
    observe_only: bool = False
    training: Training = field(default_factory=Training)
    recipe: str = ""
    ratios: Mapping[Ratio, float] = field(default_factory=dict)
