"""The advice for one run: its layout is mapped onto a profile once, then measurements are answered.

The same code runs behind the RPC and, without a server, in process. It keeps no state between
measurements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.advising.initial_weights import initial_weight_warnings, without_expected
from advisor.advising.mismatch_warnings import (
    Difference,
    DifferenceKind,
    mask_difference,
    nearest_roles_used,
    opening_differences,
    recording_differences,
    schedule_difference,
    warmup_difference,
    weight_decay_difference,
)
from advisor.advising.opening import Opening
from advisor.advising.recipe_warnings import is_check_due
from advisor.advising.recipes import ResolvedRecipe, resolve_shipped
from advisor.advising.resolved_profile import ResolvedProfile
from advisor.advising.run_recipe import RunRecipe, training_growth
from advisor.policy import (
    DepthRule,
    InvalidValueError,
    LayoutMapping,
    Measurement,
    Measurements,
    Policy,
    PriorRule,
    Recommendation,
    Recommendations,
    check_coherences,
    check_total_steps,
    map_layout,
    priors,
    recommend_all,
    refusal,
)
from advisor.policy.optimizer_families import optimizer_family


class Advice:
    """Answers the measurements of one run.

    Args:
        resolved: The profile.
        opening: The run's opening.
        mapping: The run's layout mapped onto the profile's under the run's rules; None: it is
            mapped here.
        recipe: The run's recipe if it has one, applied or only resolved; None: the rules name none,
            or one that comes with the service.

    Attributes:
        info: The profile version that the advice comes from.
        version_name: Its resource name.
        stale: Whether its name was resolved from the cache because the store is unavailable.
        layout: The run's layout.
        base_layout: The profile's layout.
        mapping: The run's layout mapped onto the profile's.
        policy_name: The stored policy in use, with its version; empty: none.
        recipe: The run's recipe; None: it has none.
        priors: The multiplier of each group from shapes alone or from the recipe, 0 where it has
            none, shape [groups].
        plan: Equal for runs that share profile, mapping and rules, as long as all are alive.
        refusal: The error that every measurement of this layout gets, or None.

    Raises:
        InvalidValueError: The depth rule needs coherences, and the profile has none; or the recipe
            cannot be used.
        RecipeNotFoundError: No recipe of this name comes with the service.
    """

    def __init__(
        self,
        resolved: ResolvedProfile,
        opening: Opening,
        mapping: LayoutMapping | None = None,
        recipe: ResolvedRecipe | RunRecipe | None = None,
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
        self._flaws = loaded.flaws
        self._policy = resolved.rules(opening)
        self._reference = loaded.smoothed(self._policy.reference_smoothing)
        self.policy_name = resolved.policy[1] if resolved.policy and not opening.policy else ""
        try:
            check_coherences(self._policy, loaded.profile.coherences)
        except InvalidValueError as error:
            if opening.policy:
                raise
            raise InvalidValueError(
                "profile",
                f"the depth rule of its policy {self.policy_name} cannot be used: "
                f"{error.description}",
            ) from None
        self.mapping: LayoutMapping = mapping or map_layout(
            opening.layout,
            loaded.profile.layout,
            self._policy.depth_rule,
            aliases=loaded.profile.aliases,
            unmatched_rule=self._policy.unmatched_rule,
        )
        self.recipe = self._applied(recipe, resolved)
        if self.recipe is not None and self.recipe.stale:
            self.stale = True
        self.priors = self._priors()
        # Identities suffice, as each run with this plan keeps the objects alive.
        self.plan: tuple[object, ...] = (
            *(id(self._reference), id(self.mapping), id(self._policy)),
            self.priors.tobytes(),  # these depend on the run's optimizer too
        )
        self.refusal = refusal(opening.layout, self.mapping, self._policy.unmatched_rule)

    @property
    def policy(self) -> Policy:
        """The rules that the run follows."""
        return self._policy

    def _applied(
        self, recipe: ResolvedRecipe | RunRecipe | None, resolved: ResolvedProfile
    ) -> RunRecipe | None:
        if isinstance(recipe, RunRecipe):
            return recipe
        if recipe is None:
            reference = resolved.recipe(self._opening)
            if reference is None:
                return None
            recipe = resolve_shipped(reference)
        training = self._opening.training
        return RunRecipe.of(
            recipe,
            self.layout,
            self.base_layout,
            self.mapping,
            optimizer=training.optimizer or self._provenance.optimizer,
            given={
                **training_growth(
                    batch_sizes=(training.batch_size, self._provenance.batch_size),
                    total_steps=(self._opening.total_steps, self._profile.total_steps),
                ),
                **self._opening.ratios,
            },
        )

    @property
    def recipe_name(self) -> str:
        """The recipe in use, with its version; empty: none."""
        return "" if self.recipe is None else self.recipe.name

    def _priors(self) -> NDArray[np.float64]:
        """Return the priors.

        Those from shapes need an optimizer like the profile's. A recipe follows from the run's own
        optimizer.
        """
        if self.recipe is not None:
            return self.recipe.priors
        own, recorded = self._opening.training.optimizer, self._provenance.optimizer
        differs = own and recorded and optimizer_family(own) != optimizer_family(recorded)
        if self._policy.prior is PriorRule.NONE or differs:
            return np.zeros(len(self.layout))
        return priors(self.layout, self.base_layout, self.mapping, optimizer=own or recorded)

    def first_multipliers(self) -> NDArray[np.float64]:
        """Return each group's multiplier before anything is measured, shape [groups].

        It is the prior within the policy's bounds, or 1 without a prior.

        Raises:
            LayoutMismatchError: The layout does not map onto the profile.
        """
        if self.refusal is not None:
            raise self.refusal
        lowest, highest = self._policy.min_multiplier, self._policy.max_multiplier
        return np.where(self.priors > 0, np.clip(self.priors, lowest, highest), 1.0)

    def recommend(self, measurement: Measurement) -> Recommendation:
        """Return the multipliers for one measurement.

        Raises:
            LayoutMismatchError: The layout does not map onto the profile.
            InvalidValueError: The measurement is out of range.
        """
        return self.recommend_all(self.checked(measurement)).row(0)

    def checked(self, measurement: Measurement) -> Measurements:
        """Check a measurement, and return it as the only row.

        Raises:
            LayoutMismatchError: The layout does not map onto the profile.
            InvalidValueError: The measurement is out of range.
        """
        if self.refusal is not None:
            raise self.refusal
        measurement.check(len(self.layout))
        return Measurements.of([measurement])

    def recommend_all(self, measured: Measurements) -> Recommendations:
        """Return the multipliers for checked measurements of runs with the same ``plan``.

        Raises:
            InvalidValueError: Alignment by progress needs a run's planned steps.
        """
        return recommend_all(
            self._profile, self._reference, self.mapping, self._policy, measured, priors=self.priors
        )

    def first_depth_factors(self) -> NDArray[np.float64]:
        """Return each group's depth factor at the profile's first point, shape [groups].

        Depth factors depend on the rates only under the rule ``measured``. Under other rules they
        are computed from equal rates.
        """
        step = float(self._profile.steps[0])
        rates = self._reference.at(step)
        if self._policy.depth_rule is DepthRule.MEASURED and rates.any():
            rates[rates == 0] = np.median(rates[rates > 0])
        else:
            rates = np.ones_like(rates)
        references = self.mapping.references(rates, self._reference.coherences_at(step))
        return self.mapping.depth_factors(references, rates)

    def start_warnings(self) -> list[str]:
        """Return what a person should know before the run starts."""
        found = [difference.message for difference in self.start_differences()]
        try:
            check_total_steps(self._policy, self._opening.total_steps)
        except InvalidValueError as error:
            found.append(f"a run that does not give total_steps is refused: {error.description}")
        return found

    def opening_differences(self) -> list[Difference]:
        """Return the differences between run and profile that the opening shows."""
        found = opening_differences(
            self._profile.base_learning_rate, self._provenance, self._opening.training
        )
        return found + nearest_roles_used(self.layout, self.base_layout, self.mapping)

    def start_differences(self) -> list[Difference]:
        """Return what a person should know of the recording, of initial weights and the recipe."""
        found = recording_differences(self._flaws) + self._initial_weight_differences()
        return found + (self.recipe.start_differences() if self.recipe else [])

    def _initial_weight_differences(self) -> list[Difference]:
        layout = self.layout
        if self.recipe is not None:  # which may want them to scale in a different way
            layout = without_expected(layout, self.recipe.factors.initial_rms)
        messages = initial_weight_warnings(layout, self.base_layout, self.mapping)
        return [Difference(DifferenceKind.INITIAL_WEIGHTS, message) for message in messages]

    def differences(
        self, measurement: Measurement, profile_step: float, ratios: NDArray[np.float64]
    ) -> list[Difference]:
        """Return the differences between the run and the profile that a measurement reveals.

        Args:
            measurement: The measurement. The first one of a run also returns the differences that
                its opening shows.
            profile_step: The step of the profile that it is compared with.
            ratios: Its reference over measured unit rates, as in the recommendation.
        """
        schedules = (self._profile, profile_step, self._opening.training, measurement)
        found = warmup_difference(*schedules) + schedule_difference(*schedules)
        if measurement.interval_steps == 0:
            found += self.opening_differences()
            found += weight_decay_difference(self._profile, measurement)
            found += mask_difference(self._profile, measurement)
            found += self.start_differences()
        if self.recipe is not None and is_check_due(measurement):
            errors = self._reference.errors(self._reference.moments([profile_step]))
            found += self.recipe.disagreement(
                ratios, np.hypot(measurement.relative_errors, self.mapping.combined(errors)[0])
            )
        return found
