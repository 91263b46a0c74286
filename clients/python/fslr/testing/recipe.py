"""A recipe for tests: the factors are given, and no profile or layout of a base is needed."""

from __future__ import annotations

from collections.abc import Sequence

from fslr.advisor.v1 import layout_pb2, recipe_pb2
from fslr.testing.factors import Factors, check_range, factors_of, values_of

_KEEP = -1.0  # as an initial RMS: the run's own


class FakeRecipe:
    """A recipe whose factors are given; see :class:`FakeAdvisor`.

    Each setting takes one factor for all groups, one for each group in layout order, or one by
    pattern of names. None: the recipe does not change the setting. The recipe has no rule for
    groups that no setting mentions.

    Args:
        learning_rate: Factors on learning rates.
        weight_decay: Factors on the optimizer's coefficient of weight decay.
        epsilon: Factors on the optimizer's epsilon.
        one_minus_beta1: Factors on one minus the decay of the first moment.
        one_minus_beta2: Factors on one minus the decay of the second moment.
        initial_scale: Factors on the run's own initial weights. The weights of a run with
            ``initialize=True`` are multiplied by them. Blocks of a role are scaled alike, as with
            any recipe.
        conditions: What has to be true of the model, in sentences.

    Raises:
        ValueError: A factor is not finite and above 0.
    """

    def __init__(
        self,
        learning_rate: Factors | None = None,
        *,
        weight_decay: Factors | None = None,
        epsilon: Factors | None = None,
        one_minus_beta1: Factors | None = None,
        one_minus_beta2: Factors | None = None,
        initial_scale: Factors | None = None,
        conditions: Sequence[str] = (),
    ) -> None:
        self._settings: dict[str, Factors] = {
            name: given
            for name, given in (
                ("learning_rate", learning_rate),
                ("weight_decay", weight_decay),
                ("epsilon", epsilon),
                ("one_minus_beta1", one_minus_beta1),
                ("one_minus_beta2", one_minus_beta2),
                ("initial_scale", initial_scale),
            )
            if given is not None
        }
        for name, given in self._settings.items():
            check_range(f"a factor of {name}", values_of(given), can_be_zero=False)
        self._conditions = tuple(conditions)

    def factors(self, layout: layout_pb2.Layout) -> recipe_pb2.RecipeFactors:
        """Return the factors for a run.

        Args:
            layout: The run's layout.

        Raises:
            ValueError: The factors of a setting do not fit the layout.
        """
        groups = layout.groups
        names = [group.name for group in groups]
        found = {
            setting: factors_of(given, names, f"factors of {setting}")
            for setting, given in self._settings.items()
        }
        unchanged: list[float | None] = [None] * len(names)

        def column(setting: str) -> list[float]:
            return [1.0 if f is None else f for f in found.get(setting, unchanged)]

        return recipe_pb2.RecipeFactors(
            learning_rates=column("learning_rate"),
            weight_decays=column("weight_decay"),
            epsilons=column("epsilon"),
            one_minus_beta1s=column("one_minus_beta1"),
            one_minus_beta2s=column("one_minus_beta2"),
            initial_scales=column("initial_scale"),
            initial_rms=[
                _KEEP
                if scale is None or not group.HasField("initial_rms")
                else scale * group.initial_rms
                for group, scale in zip(groups, found.get("initial_scale", unchanged), strict=True)
            ],
            has_rule=[
                any(factors[place] is not None for factors in found.values())
                for place in range(len(names))
            ],
            conditions=self._conditions,
        )

    def learning_rates(self, layout: layout_pb2.Layout) -> list[float]:
        """Return the factors on learning rates, 0 for groups without a rule.

        Args:
            layout: The run's layout.

        Raises:
            ValueError: The factors of a setting do not fit the layout.
        """
        factors = self.factors(layout)
        pairs = zip(factors.learning_rates, factors.has_rule, strict=True)
        return [rate if has_rule else 0.0 for rate, has_rule in pairs]
