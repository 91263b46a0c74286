"""Recipes and their factors: messages to domain objects and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, TypeVar

import numpy as np

from advisor.advising.recipes import ResolvedRecipe
from advisor.policy import GroupKind, InvalidValueError
from advisor.policy.arrays import Floats
from advisor.policy.ratios import given_ratios
from advisor.recipes import Field, Powers, Ratio, Recipe, RecipeFactors, Row
from advisor.registry.recipes import StoredRecipe
from advisor.wire.field_paths import field_path
from advisor.wire.layouts import KINDS
from advisor.wire.profiles import timestamp_to_proto
from fslr.advisor.v1 import recipe_pb2, recipe_service_pb2

_FIELDS = {
    recipe_pb2.RECIPE_FIELD_LEARNING_RATE: Field.LEARNING_RATE,
    recipe_pb2.RECIPE_FIELD_WEIGHT_DECAY: Field.WEIGHT_DECAY,
    recipe_pb2.RECIPE_FIELD_EPSILON: Field.EPSILON,
    recipe_pb2.RECIPE_FIELD_ONE_MINUS_BETA1: Field.ONE_MINUS_BETA1,
    recipe_pb2.RECIPE_FIELD_ONE_MINUS_BETA2: Field.ONE_MINUS_BETA2,
    recipe_pb2.RECIPE_FIELD_INITIAL_SCALE: Field.INITIAL_SCALE,
}
_RATIOS = {
    recipe_pb2.RATIO_FAN_IN: Ratio.FAN_IN,
    recipe_pb2.RATIO_FAN_OUT: Ratio.FAN_OUT,
    recipe_pb2.RATIO_DEPTH: Ratio.DEPTH,
    recipe_pb2.RATIO_EXPERTS: Ratio.EXPERTS,
    recipe_pb2.RATIO_RANK: Ratio.RANK,
    recipe_pb2.RATIO_HEAD_SIZE: Ratio.HEAD_SIZE,
    recipe_pb2.RATIO_BATCH: Ratio.BATCH,
    recipe_pb2.RATIO_TOKENS: Ratio.TOKENS,
    recipe_pb2.RATIO_SEQUENCE: Ratio.SEQUENCE,
}
_KNOWN_KINDS = {number: kind for number, kind in KINDS.items() if kind is not GroupKind.UNKNOWN}
_GIVEN = ("head_size", "batch", "tokens", "sequence")
_UNKNOWN_RMS = -1.0

_Member = TypeVar("_Member", bound=Enum)


def recipe_from_proto(message: recipe_pb2.Recipe, name: str) -> Recipe:
    """Return the recipe of a message, checked.

    Args:
        message: The message.
        name: The recipe's identifier.

    Raises:
        InvalidValueError: A value is out of its range, or a row can never apply.
    """
    covers = [_member(f"covers[{i}]", _RATIOS, number) for i, number in enumerate(message.covers)]
    rows = []
    for i, row in enumerate(message.rows):
        with field_path(f"rows[{i}]"):
            rows.append(_row(row))
    try:
        return Recipe.of(
            name,
            rows,
            description=message.description,
            source=message.source,
            optimizers=message.optimizers,
            covers=covers,
            conditions=message.conditions,
        )
    except InvalidValueError as error:  # in files the rows are called groups
        path = error.field.replace("groups", "rows", 1)
        raise InvalidValueError(path, error.description.replace("groups[", "rows[")) from None


def recipe_to_proto(recipe: Recipe) -> recipe_pb2.Recipe:
    """Return the message of a recipe; the name is not a part of it."""
    return recipe_pb2.Recipe(
        description=recipe.description,
        source=recipe.source,
        optimizers=recipe.optimizers,
        conditions=recipe.conditions,
        covers=[_number(_RATIOS, ratio) for ratio in recipe.covers],
        rows=[
            recipe_pb2.RecipeRow(
                kinds=[_number(_KNOWN_KINDS, kind) for kind in row.kinds],
                residual_output=row.residual_output,
                in_block=row.in_block,
                optimizers=row.optimizers,
                factors=[
                    recipe_pb2.RecipeFactor(
                        field=_number(_FIELDS, field),
                        powers=[
                            recipe_pb2.RatioPower(ratio=_number(_RATIOS, ratio), power=exponent)
                            for ratio, exponent in powers.exponents
                        ],
                    )
                    for field, powers in row.powers.items()
                ],
            )
            for row in recipe.rows
        ],
    )


def recipe_version_to_proto(
    found: StoredRecipe | ResolvedRecipe,
) -> recipe_service_pb2.RecipeVersion:
    """Return the message of a stored version, or of a recipe that comes with the service."""
    table = None if found.recipe is None else recipe_to_proto(found.recipe)
    if isinstance(found, ResolvedRecipe):
        return recipe_service_pb2.RecipeVersion(name=found.name, recipe=table)
    return recipe_service_pb2.RecipeVersion(
        name=str(found.reference),
        version=found.reference.version,
        create_time=timestamp_to_proto(found.create_time),
        recipe=table,
    )


def training_ratios_from_proto(message: recipe_pb2.TrainingRatios) -> dict[Ratio, float]:
    """Return the ratios that a caller gives.

    Raises:
        InvalidValueError: A ratio is not a positive number.
    """
    given = {
        Ratio(name): float(getattr(message, name))
        for name in _GIVEN
        if message.HasField(name)  # type: ignore[arg-type]
    }
    try:
        given_ratios(given)
    except InvalidValueError as error:
        raise InvalidValueError(error.field.removeprefix("ratios."), error.description) from None
    return given


def factors_to_proto(factors: RecipeFactors) -> recipe_pb2.RecipeFactors:
    """Return the message of a recipe's factors."""
    initial_rms = factors.initial_rms
    return recipe_pb2.RecipeFactors(
        learning_rates=_listed(factors.factors[Field.LEARNING_RATE]),
        weight_decays=_listed(factors.factors[Field.WEIGHT_DECAY]),
        epsilons=_listed(factors.factors[Field.EPSILON]),
        one_minus_beta1s=_listed(factors.factors[Field.ONE_MINUS_BETA1]),
        one_minus_beta2s=_listed(factors.factors[Field.ONE_MINUS_BETA2]),
        initial_scales=_listed(factors.factors[Field.INITIAL_SCALE]),
        initial_rms=_listed(np.where(np.isfinite(initial_rms), initial_rms, _UNKNOWN_RMS)),
        has_rule=factors.has_rule.tolist(),
        conditions=factors.recipe.conditions,
    )


def _row(message: recipe_pb2.RecipeRow) -> Row:
    kinds = [_member(f"kinds[{i}]", _KNOWN_KINDS, number) for i, number in enumerate(message.kinds)]
    if len({*kinds}) < len(kinds):
        raise InvalidValueError("kinds", "a kind is given twice; remove one of the two")
    powers: dict[Field, Powers] = {}
    for i, factor in enumerate(message.factors):
        path = f"factors[{i}]"
        field = _member(f"{path}.field", _FIELDS, factor.field)
        if field in powers:
            raise InvalidValueError(
                f"{path}.field", f"{field.value} is given twice; give one factor for each setting"
            )
        with field_path(path):
            powers[field] = _powers(factor.powers)
    return Row(
        kinds=tuple(kinds),
        residual_output=_stated(message, "residual_output"),
        in_block=_stated(message, "in_block"),
        optimizers=tuple(message.optimizers),
        powers={field: powers[field] for field in Field if _is_given(powers.get(field))},
    )


def _stated(message: recipe_pb2.RecipeRow, flag: Literal["residual_output", "in_block"]) -> Any:
    """Return a flag of a row; None if it is absent."""
    return getattr(message, flag) if message.HasField(flag) else None


def _is_given(powers: Powers | None) -> bool:
    """Return whether a factor differs from 1."""
    return powers is not None and bool(powers.exponents)


def _powers(messages: Iterable[recipe_pb2.RatioPower]) -> Powers:
    exponents: dict[Ratio, float] = {}
    for i, message in enumerate(messages):
        ratio = _member(f"powers[{i}].ratio", _RATIOS, message.ratio)
        if ratio in exponents:
            raise InvalidValueError(
                f"powers[{i}].ratio", f"{ratio.value} is given twice; add the two powers"
            )
        exponents[ratio] = message.power
        try:
            Powers.of({ratio: message.power})
        except InvalidValueError as error:
            raise InvalidValueError(f"powers[{i}].power", error.description) from None
    return Powers.of(exponents)


def _member(path: str, table: Mapping[Any, _Member], number: int) -> _Member:
    try:
        return table[number]
    except KeyError:
        known = ", ".join(str(member.value) for member in table.values())
        raise InvalidValueError(
            path, f"{number} is not a value that this service knows; it knows {known}"
        ) from None


def _number(table: Mapping[Any, _Member], member: _Member) -> Any:
    return next(number for number, value in table.items() if value is member)


def _listed(array: Floats) -> list[float]:
    listed: list[float] = array.tolist()
    return listed
