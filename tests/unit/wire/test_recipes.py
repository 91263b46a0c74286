"""Recipes: messages to domain objects and back."""

from __future__ import annotations

import json

import pytest

from advisor.policy import InvalidValueError
from advisor.recipes import (
    Field,
    Ratio,
    recipe_from_fields,
    recipe_to_fields,
    shipped_recipe,
    shipped_recipe_names,
)
from advisor.store.codec import canonical
from advisor.wire import recipe_from_proto, recipe_to_proto
from fslr.advisor.v1 import layout_pb2, recipe_pb2


@pytest.mark.parametrize("name", shipped_recipe_names())
def test_every_shipped_recipe_is_unchanged_after_conversion_and_after_storing(name: str) -> None:
    recipe = shipped_recipe(name)
    assert recipe_from_proto(recipe_to_proto(recipe), name) == recipe
    stored = canonical(recipe_to_fields(recipe))
    assert canonical(recipe_to_fields(recipe_from_fields(json.loads(stored)))) == stored
    assert recipe_from_fields(json.loads(stored)) == recipe


def test_the_contract_has_every_setting_and_ratio() -> None:
    fields = {name.removeprefix("RECIPE_FIELD_") for name in recipe_pb2.RecipeField.keys()[1:]}
    ratios = {name.removeprefix("RATIO_") for name in recipe_pb2.Ratio.keys()[1:]}
    assert fields == {field.name for field in Field}
    assert ratios == {ratio.name for ratio in Ratio}


def row(*factors: recipe_pb2.RecipeFactor, kinds: int = 1) -> recipe_pb2.Recipe:
    hidden = layout_pb2.GROUP_KIND_HIDDEN
    return recipe_pb2.Recipe(
        rows=[recipe_pb2.RecipeRow(kinds=[hidden] * kinds, factors=list(factors))]
    )


def factor(field: int, *powers: recipe_pb2.RatioPower) -> recipe_pb2.RecipeFactor:
    return recipe_pb2.RecipeFactor(field=field, powers=list(powers))  # type: ignore[arg-type]


FAN_IN = recipe_pb2.RatioPower(ratio=recipe_pb2.RATIO_FAN_IN, power=-1.0)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (row(kinds=2), r"rows\[0\]\.kinds: a kind is given twice"),
        (
            row(factor(1), factor(1)),
            r"rows\[0\]\.factors\[1\]\.field: learning_rate is given",
        ),
        (
            row(factor(0)),
            r"rows\[0\]\.factors\[0\]\.field: 0 is not a value that this",
        ),
        (
            row(factor(1, FAN_IN, FAN_IN)),
            r"factors\[0\]\.powers\[1\]\.ratio: fan_in is given",
        ),
        (recipe_pb2.Recipe(), "rows: 0 rows, but 1 to 64 are needed"),
        (
            recipe_pb2.Recipe(rows=[recipe_pb2.RecipeRow()], optimizers=["Adm"]),
            r"optimizers\[0\]: 'Adm' is not a family",
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    message: recipe_pb2.Recipe, problem: str
) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        recipe_from_proto(message, "ours")
