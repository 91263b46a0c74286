"""The recipe that a run follows, from its start through its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2
from fslr.errors import AttachError, ServiceError
from fslr.protocols import Advisor
from fslr.training.events import Listeners, Warned
from fslr.training.exchange import Ranks
from fslr.training.group_advice import GroupAdvice
from fslr.training.initial_scaling import (
    InitialScaling,
    initial_scaling,
    needed_scaling,
    range_of,
    refuse_unscalable,
)
from fslr.training.recipe import Recipe, ask_for_recipe
from fslr.training.setting_factors import SettingFactors
from fslr.training.summaries import count_of, short_name

ApplySettings = Callable[[Sequence[SettingFactors]], Sequence[str]]
"""Multiplies an optimizer's settings, and returns lines about what it cannot take."""

NO_RECIPE: Mapping[str, Any] = {"name": "", "numbers": [], "conditions": [], "initialized": False}
"""The state of a run that follows no recipe."""


class RecipeInForce:
    """The recipe that a run follows, if it follows one.

    Args:
        opening: The run. Its layout gets the initial weights that scaling leads to, and it says
            whether they are as large as the recipe wants.
        ranks: The processes that train the model.
        listeners: Receive what a person should know.
        apply: Multiplies the optimizer's settings in all steps that follow.
        remedy: What to do about initial weights that differ from what the recipe wants.

    Attributes:
        recipe: The recipe; None: the run follows none.
        initialized: Whether initial weights were scaled for it.
        initial_factors: What they were multiplied by in this process; empty: they were not scaled.
    """

    def __init__(
        self,
        opening: pb.RunOpening,
        *,
        ranks: Ranks,
        listeners: Listeners,
        apply: ApplySettings,
        remedy: str = "pass initialize=True to scale them before the first step",
    ) -> None:
        self.recipe: Recipe | None = None
        self.initialized = False
        self.initial_factors: Sequence[float] = ()
        self._opening = opening
        self._ranks = ranks
        self._listeners = listeners
        self._apply, self._remedy = apply, remedy
        self._groups = [group.name for group in opening.layout.groups]

    def ask(
        self, advisor: Advisor, *, strict: bool, initialize: bool = False
    ) -> InitialScaling | None:
        """Ask for the recipe; all ranks call it.

        Args:
            advisor: The advisor.
            strict: Whether an advisor that does not answer is an error; else it is a warning, and
                the run does not follow the recipe that its opening names.
            initialize: Whether initial weights are to be scaled. From then on the opening says how
                large they are afterwards.

        Returns:
            How initial weights are to be scaled, the same on all ranks; None: they are not.

        Raises:
            AttachError: The advisor knows no recipes; or initial weights are to be scaled, and the
                run follows none, or one that does not say how.
            ServiceError: The advisor does not answer, or refuses the run or the recipe.
        """
        try:
            self.recipe = ask_for_recipe(advisor, self._opening, self._ranks)
        except ServiceError as error:
            if strict:
                raise
            self._warn(f"{self._without(initialize=initialize)}: {error}")
            # Its learning rates without its decay, epsilon and initial weights would be neither.
            self._opening.recipe = ""
            return None
        if not initialize:
            self._opening.initial_weights_follow_recipe = self._follow_recipe()
            return None
        if self.recipe is None:
            raise AttachError(
                "initialize=True scales initial weights as a recipe says, but the run follows "
                'none; pass one, such as recipe="mup-adam", or name one in the policy; nothing was '
                "changed"
            )
        refuse_unscalable(self.recipe, self._opening.layout)
        self._opening.initial_weights_follow_recipe = True
        return self._scaling(self.recipe)

    def _without(self, *, initialize: bool) -> str:
        """Return what a run does whose recipe could not be asked for."""
        kept = "; initial weights were not scaled" if initialize else ""
        if self._opening.recipe:
            return f"training does not follow the recipe {self._opening.recipe}{kept}"
        return (
            "training follows only the learning rates of its policy's recipe, if it has one, and "
            f"no other settings{kept}"
        )

    def _scaling(self, recipe: Recipe) -> InitialScaling:
        found = initial_scaling(recipe, self._rms(), self._opening.layout)
        factors = self._ranks.from_speaker(found.factors)
        for message in found.warnings:
            self._warn(message)
        for group, rms in zip(self._opening.layout.groups, found.rms, strict=True):
            if rms is not None:
                group.initial_rms = rms
        return InitialScaling(tuple(factors), found.rms, found.warnings)

    @property
    def priors(self) -> list[float] | None:
        """The recipe's factors on learning rates, 0 without a rule; None without a recipe.

        They may depend on the batch size and the number of steps, which only an opening says.
        """
        if self.recipe is None:
            return None
        pairs = zip(self.recipe.settings, self.recipe.has_rule, strict=True)
        return [factors.learning_rate if has_rule else 0.0 for factors, has_rule in pairs]

    def begin(self, scaling: InitialScaling | None) -> None:
        """Put the recipe in force, and tell a person about it.

        Args:
            scaling: How initial weights are scaled; None: they are not.
        """
        recipe = self.recipe
        if recipe is None:
            return
        self.initialized = scaling is not None
        self.initial_factors = () if scaling is None else scaling.factors
        for line in self._apply(recipe.settings):
            self._warn(line)
        if scaling is None and (needed := self._needed_scaling(recipe)):
            self._warn(f"{needed}; {self._remedy}")
        self._hint(words(recipe, scaling))

    def _needed_scaling(self, recipe: Recipe) -> str:
        """Return a warning if initial weights are not as large as the recipe wants, or nothing."""
        # The size of a short vector is chance.
        kinds = [group.kind for group in self._opening.layout.groups]
        known = [
            None if kind == layout_pb2.GROUP_KIND_VECTOR else rms
            for kind, rms in zip(kinds, self._rms(), strict=True)
        ]
        return needed_scaling(recipe, known, self._opening.layout)

    def _follow_recipe(self) -> bool:
        """Return whether initial weights are known to be as large as the recipe wants."""
        if self.recipe is None or not any(self.recipe.initial_rms):
            return False
        return any(self._rms()) and not self._needed_scaling(self.recipe)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        if self.recipe is None:
            return dict(NO_RECIPE)
        return {
            "name": self.recipe.name,
            "numbers": self.recipe.numbers(),
            "conditions": list(self.recipe.conditions),
            "initialized": self.initialized,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the recipe of a checkpoint; initial weights are not scaled again.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            AttachError: It belongs to a model with another number of groups.
        """
        recipe = (
            Recipe.of_numbers(state["name"], state["numbers"], state["conditions"])
            if state["name"]
            else None
        )
        if recipe is not None and len(recipe.settings) != len(self._groups):
            raise AttachError(
                f"the checkpoint has a recipe for {len(recipe.settings)} groups, and there are "
                f"{len(self._groups)}; load the one that belongs to this model"
            )
        here, there = _name(self.recipe), _name(recipe)
        if here != there:
            self._warn(f"the run follows {there}, as its checkpoint says, and not {here}")
        if self.initialized and not state["initialized"]:
            self._warn(
                "initialize=True has no effect: the checkpoint is of a run whose initial weights "
                "were not scaled"
            )
        self.recipe, self.initialized = recipe, bool(state["initialized"])
        self.initial_factors = ()  # the weights are those of the checkpoint
        self._apply(recipe.settings if recipe else [SettingFactors()] * len(self._groups))

    def completed(self, advice: Mapping[str, GroupAdvice]) -> dict[str, GroupAdvice]:
        """Return what is known about each group, with what the recipe says about it.

        Args:
            advice: What is known about each group, by its name, in layout order.
        """
        if self.recipe is None:
            return dict(advice)
        initial: Sequence[float | None] = self.initial_factors or [None] * len(self._groups)
        return {
            name: replace(known, recipe=factors if has_rule else None, initial_factor=factor)
            for (name, known), factors, has_rule, factor in zip(
                advice.items(), self.recipe.settings, self.recipe.has_rule, initial, strict=True
            )
        }

    def _rms(self) -> list[float | None]:
        groups = self._opening.layout.groups
        return [g.initial_rms if g.HasField("initial_rms") else None for g in groups]

    def _warn(self, message: str) -> None:
        self._listeners.emit(Warned(0, message))

    def _hint(self, message: str) -> None:
        if self._ranks.speaks:
            self._listeners.emit(Warned(0, message, is_hint=True))


def words(recipe: Recipe, scaling: InitialScaling | None) -> str:
    """Return a line for the log: which recipe a run follows, and what it changes.

    Args:
        recipe: The recipe.
        scaling: How initial weights are scaled; None: they are not.
    """
    parts = [
        f"{name} of {len(changed)} by {range_of(changed)}"
        for name, factors in (
            ("learning rates", [f.learning_rate for f in recipe.settings]),
            ("weight decay", [f.weight_decay for f in recipe.settings]),
            ("epsilon", [f.epsilon for f in recipe.settings]),
            ("1 - beta1", [f.one_minus_beta1 for f in recipe.settings]),
            ("1 - beta2", [f.one_minus_beta2 for f in recipe.settings]),
            ("initial weights", scaling.factors if scaling else ()),
        )
        if (changed := [factor for factor in factors if factor != 1.0])
    ]
    changes = f"it multiplies {', '.join(parts)}" if parts else "it changes nothing"
    name, lacking = short_name(recipe.name), recipe.has_rule.count(False)
    sentences = [f"recipe {name} for {count_of(len(recipe.settings), 'group')}: {changes}"]
    if lacking:
        sentences.append(f"it has no rule for {lacking} of them")
    if scaling is not None and not scaling.scaled:
        sentences.append("initial weights are as large as it wants them")
    if recipe.conditions:
        sentences.append(
            f"it holds under {count_of(len(recipe.conditions), 'condition')}, which "
            f"`advisor recipe show {recipe.name}` lists"
        )
    return "; ".join(sentences)


def _name(recipe: Recipe | None) -> str:
    return "no recipe" if recipe is None else f"the recipe {recipe.name}"
