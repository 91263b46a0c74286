"""The recipe of a run: what it says about each group before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.errors import AttachError, InvalidRequestError, ServiceError
from fslr.protocols import Advisor, StartingSession
from fslr.training.exchange import Ranks
from fslr.training.setting_factors import SettingFactors

_SETTINGS = ("learning_rates", "weight_decays", "epsilons", "one_minus_beta1s", "one_minus_beta2s")
_FIELDS = (*_SETTINGS, "initial_scales")
_ROW = 8  # numbers for each group
_SERVICE, _OTHER = "S", "O"  # what failed, as one character before the message
_KEEP = -1.0  # as an initial RMS: the run's own


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe says about a run; one entry for each group, in layout order.

    Attributes:
        name: The recipe's name; a stored one has a version.
        settings: Factors on learning rate and other settings; 1 where the recipe has no rule.
        initial_scales: Factors on the initial weights of the base.
        initial_rms: Root mean square that the entries of a tensor are to start with; None: the
            recipe or the base's profile does not say.
        has_rule: Whether the recipe has a rule for the group.
        conditions: What has to be true of the model, in sentences.
        warnings: Why it does not fit the run; only on the rank that asked for it.
    """

    name: str
    settings: tuple[SettingFactors, ...]
    initial_scales: tuple[float, ...]
    initial_rms: tuple[float | None, ...]
    has_rule: tuple[bool, ...]
    conditions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, answer: pb.RecommendLRResponse, groups: int) -> Recipe:
        """Return the recipe in the answer to an opening.

        Args:
            answer: The answer.
            groups: Number of groups of the run.

        Raises:
            ServiceError: The factors are not finite and above 0, or not one for each group.
        """
        factors = answer.recipe_factors
        columns = [list(getattr(factors, name)) for name in _FIELDS]
        rms, rules = list(factors.initial_rms), list(factors.has_rule)
        unusable = [
            name
            for name, column in zip(_FIELDS, columns, strict=True)
            if len(column) != groups or not all(0 < value < math.inf for value in column)
        ]
        if len(rms) != groups or not all(map(math.isfinite, rms)):
            unusable.append("initial_rms")
        if len(rules) != groups:
            unusable.append("has_rule")
        if unusable:
            raise ServiceError(
                f"the advisor sent factors of the recipe {answer.recipe} that cannot be applied: "
                f"{', '.join(unusable)} must have one finite number for each of {groups} groups; "
                "ask whoever runs the advisor to update it"
            )
        return cls(
            answer.recipe,
            tuple(SettingFactors(*row) for row in zip(*columns[:-1], strict=True)),
            tuple(columns[-1]),
            tuple(value if value >= 0 else None for value in rms),
            tuple(rules),
            tuple(factors.conditions),
            tuple(w.message for w in answer.warnings if w.kind == pb.WARNING_KIND_RECIPE),
        )

    def numbers(self) -> list[float]:
        """Return all numbers of the recipe, so that other ranks can be sent them."""
        rows = [
            (
                *(f.learning_rate, f.weight_decay, f.epsilon),
                *(f.one_minus_beta1, f.one_minus_beta2, scale),
                _KEEP if rms is None else rms,
                float(rule),
            )
            for f, scale, rms, rule in zip(
                *(self.settings, self.initial_scales, self.initial_rms, self.has_rule), strict=True
            )
        ]
        return [number for row in rows for number in row]

    @classmethod
    def of_numbers(cls, name: str, numbers: Sequence[float], conditions: Sequence[str]) -> Recipe:
        """Return the recipe whose :meth:`numbers` these are."""
        rows = [numbers[place : place + _ROW] for place in range(0, len(numbers), _ROW)]
        return cls(
            name,
            tuple(SettingFactors(*row[:5]) for row in rows),
            tuple(row[5] for row in rows),
            tuple(None if row[6] < 0 else row[6] for row in rows),
            tuple(row[7] > 0 for row in rows),
            tuple(conditions),
        )


def ask_for_recipe(advisor: Advisor, opening: pb.RunOpening, ranks: Ranks) -> Recipe | None:
    """Ask what a run's recipe says about its groups; all ranks call it and get the same.

    Args:
        advisor: The advisor.
        opening: The run. Nothing of it is stored.
        ranks: The processes that train the model.

    Returns:
        The recipe; None if the run follows none.

    Raises:
        AttachError: The advisor cannot answer an opening without a measurement, or, on the ranks
            that did not ask, it failed in some other way than by a ServiceError.
        ServiceError: It does not answer, or refuses the run or the recipe.
    """
    groups = len(opening.layout.groups)
    recipe: Recipe | None = None
    refusal: Exception | None = None
    if ranks.speaks:
        try:
            recipe = _answered(advisor, opening, groups)
        except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
            refusal = error
    # All ranks have to fail alike: a start that is not strict goes on without a service.
    failed = _SERVICE if isinstance(refusal, ServiceError) else _OTHER
    message = ranks.text_from_speaker(
        "" if refusal is None else f"{failed}{str(refusal) or repr(refusal)}"
    )
    if message:
        others = ServiceError if message.startswith(_SERVICE) else AttachError
        raise refusal or others(message[1:])
    name, *conditions = ranks.text_from_speaker(
        "\n".join((recipe.name, *recipe.conditions)) if recipe else ""
    ).split("\n")
    if not name:
        return None
    numbers = ranks.from_speaker(recipe.numbers() if recipe else [1.0] * (_ROW * groups))
    received = Recipe.of_numbers(name, numbers, conditions)
    return replace(received, warnings=() if recipe is None else recipe.warnings)


def _answered(advisor: Advisor, opening: pb.RunOpening, groups: int) -> Recipe | None:
    """Return the advisor's answer as a recipe, or None if the run follows none.

    Raises:
        AttachError: The advisor cannot answer an opening without a measurement.
        InvalidRequestError: The advisor refuses the run.
        ServiceError: It does not answer, or there is no such recipe.
    """
    asked = pb.RunOpening()
    asked.CopyFrom(opening)
    asked.run = ""  # nothing is stored of a run that has not begun
    session = advisor.open_run(asked)
    try:
        if not isinstance(session, StartingSession):
            raise AttachError(
                f"a {type(advisor).__name__} knows no recipes: its sessions have no start(); use "
                "the service, an InProcessAdvisor, or leave out recipe and initialize"
            )
        answer = session.start()
    except InvalidRequestError as error:
        if "measurement" in str(error) and "missing" in str(error):
            raise AttachError(
                "the service is older than recipes: it does not answer a run before its first "
                f"measurement ({error}); update it, or leave out recipe and initialize"
            ) from error
        raise
    finally:
        session.close()
    if not answer.recipe:
        if opening.recipe:
            raise AttachError(
                f"the service ignored the recipe {opening.recipe}: it is older than recipes; "
                "update it, or leave out recipe and initialize"
            )
        return None
    return Recipe.of(answer, groups)
