"""Recipes as plain data: read, written and refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from advisor.policy import InvalidValueError
from advisor.recipes import (
    Field,
    Ratio,
    Recipe,
    load_recipe,
    recipe_from_fields,
    recipe_to_fields,
    shipped_recipe,
    shipped_recipe_names,
    shipped_recipe_text,
)
from advisor.recipes.shipped import TABLES
from advisor.recipes.shipped.tables import tables_text
from fslr._yaml import load
from fslr.errors import ProfileFileError
from fslr.profile_files import format_fields

HIDDEN = {"kinds": ["hidden"], "learning_rate": {"fan_in": -1}}


@pytest.mark.parametrize("name", shipped_recipe_names())
def test_a_recipe_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    recipe = shipped_recipe(name)
    for suffix in ("yaml", "json"):
        path = tmp_path / f"recipe.{suffix}"
        path.write_text(format_fields(recipe_to_fields(recipe), yaml=suffix == "yaml"), "utf-8")
        assert load_recipe(path) == recipe


@pytest.mark.parametrize("name", shipped_recipe_names())
def test_a_shipped_recipe_is_named_like_its_file_and_has_a_source(name: str) -> None:
    recipe = shipped_recipe(name)
    assert recipe.name == name
    assert "arXiv" in recipe.source
    assert recipe.description.endswith(".")
    assert all(condition.endswith(".") for condition in recipe.conditions)
    assert max(map(len, shipped_recipe_text(name).splitlines())) <= 115


def test_shipped_recipes_are_those_of_their_yaml_files() -> None:
    """They are read from one JSON file, as PyYAML is missing where only a client is installed."""
    stored = resources.files("advisor.recipes.shipped").joinpath(TABLES).read_text("utf-8")
    assert stored == tables_text(), "run `python -m advisor.recipes.shipped`"
    assert len(shipped_recipe_names()) == len(load(stored)) > 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "recipe: has no fields"),
        ({"groups": [HIDDEN]}, "name: '' is not 1 to 63 characters"),
        ({"name": "My recipe", "groups": [HIDDEN]}, "name: 'My recipe' is not 1 to 63 characters"),
        ({"name": "a", "x": []}, "recipe: 'x' is not a field; use one of name, description"),
        ({"name": "a", "group": []}, "recipe: 'group' is not a field; did you mean groups?"),
        ({"name": "a"}, "groups: 0 rows, but 1 to 64 are needed"),
        ({"name": "a", "groups": [{}] * 65}, "groups: 65 rows, but 1 to 64 are needed"),
        ({"name": "a", "groups": 3}, "groups: 3 is not a list"),
        ({"name": "a", "groups": ["hidden"]}, r"groups\[0\]: has no fields"),
        ({"name": 3, "groups": [HIDDEN]}, "name: 3 is not text"),
        ({"name": "a", "source": "x" * 4097, "groups": [{}]}, "source: 4097 characters, but at"),
        ({"name": "a", "source": "\x1b[2J", "groups": [{}]}, "source: .*control character"),
        ({"name": "a", "conditions": ["c."] * 33, "groups": [{}]}, "conditions: 33, but at most"),
        ({"name": "a", "covers": ["width"], "groups": [{}]}, r"covers\[0\]: 'width' is not a rat"),
        (
            {"name": "a", "optimizers": ["Adam"] * 2, "groups": [{}]},
            "optimizers: a family is",
        ),
        (
            {"name": "a", "optimizers": ["AdamW"], "groups": [{}]},
            r"optimizers\[0\]: 'AdamW' is not a family of optimizers; it belongs to Adam",
        ),
        (
            {"name": "a", "optimizers": ["quick"], "groups": [{}]},
            r"optimizers\[0\]: 'quick' is not a family of optimizers; use Adadelta, Adagrad, Adam",
        ),
        (
            {"name": "a", "optimizers": ["SGD"], "groups": [{"optimizers": ["Adam"]}]},
            r"groups\[0\]\.optimizers: Adam is not among the recipe's optimizers: SGD",
        ),
    ],
)
def test_a_recipe_that_is_not_valid_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        recipe_from_fields(fields)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kinds": ["hiden"]}, r"kinds\[0\]: 'hiden' is not a kind; did you mean hidden\?"),
        ({"kinds": ["unknown"]}, r"kinds\[0\]: 'unknown' is not a kind; use one of embedding"),
        ({"kinds": ["hidden", "hidden"]}, "kinds: a kind is given twice"),
        ({"kinds": "hidden"}, "kinds: 'hidden' is not a list"),
        ({"residual_output": "yes"}, "residual_output: 'yes' is not true or false"),
        ({"in_block": 1}, "in_block: 1 is not true or false"),
        ({"learning_rates": {}}, "'learning_rates' is not a field; did you mean learning_rate?"),
        ({"epsilon": 2}, "epsilon: has no fields"),
        ({"epsilon": {"fanin": 1}}, "epsilon: 'fanin' is not a ratio; did you mean fan_in?"),
        ({"epsilon": {"fan_in": "1"}}, "epsilon.fan_in: '1' is not a number"),
        ({"epsilon": {"fan_in": True}}, "epsilon.fan_in: True is not a number"),
        ({"epsilon": {"fan_in": float("nan")}}, "epsilon.fan_in: the exponent nan is not in"),
        ({"epsilon": {"fan_in": float("inf")}}, "epsilon.fan_in: the exponent inf is not in"),
        ({"epsilon": {"fan_in": 10**400}}, "epsilon.fan_in: 1000.* is too large for a number"),
        ({"epsilon": 0}, "epsilon: has no fields"),
        ({"epsilon": []}, "epsilon: has no fields"),
        ({"epsilon": {"depth": -9}}, r"epsilon.depth: the exponent -9.0 is not in \[-8, 8\]"),
    ],
)
def test_a_row_that_is_not_valid_is_refused_with_its_place(
    row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=rf"groups\[1\].*{message}"):
        recipe_from_fields({"name": "a", "groups": [HIDDEN, row]})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, HIDDEN),
        (HIDDEN, {**HIDDEN, "residual_output": True}),
        ({"kinds": ["hidden", "expert"]}, {"kinds": ["expert"], "in_block": False}),
        (HIDDEN, {**HIDDEN, "optimizers": ["Adam"]}),
    ],
)
def test_a_row_that_never_applies_is_refused(first: Any, second: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"groups\[1\]: never applies, because groups\[0\]"):
        recipe_from_fields({"name": "a", "groups": [first, second]})
    assert len(recipe_from_fields({"name": "a", "groups": [second, first]}).rows) == 2


def test_a_row_that_several_rows_leave_nothing_for_is_refused() -> None:
    def recipe(*rows: dict[str, Any], optimizers: Sequence[str] = ()) -> Recipe:
        return recipe_from_fields({"name": "a", "groups": [*rows], "optimizers": [*optimizers]})

    rest = {"kinds": ["hidden"]}
    both = [{**rest, "residual_output": flag} for flag in (True, False)]
    with pytest.raises(
        InvalidValueError, match=r"\[2\]: never applies, because groups\[0\] and groups\[1\] fit "
    ):
        recipe(*both, rest)
    assert len(recipe(both[0], rest).rows) == 2
    adam = {**rest, "optimizers": ["Adam"]}
    with pytest.raises(InvalidValueError, match=r"\[1\]: never applies, because groups\[0\] fits"):
        recipe(adam, rest, optimizers=["Adam"])
    assert len(recipe(adam, rest, optimizers=["Adam", "SGD"]).rows) == 2
    assert len(recipe(adam, rest).rows) == 2  # for all other optimizers


def test_an_empty_factor_is_none() -> None:
    empties: list[dict[str, int] | None] = [None, {}]
    for empty in empties:
        recipe = recipe_from_fields({"name": "a", "groups": [{**HIDDEN, "epsilon": empty}]})
        assert Field.EPSILON not in recipe.fields


def test_a_file_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nname: b\n", "utf-8")
    with pytest.raises(ProfileFileError, match="'name' is given twice"):
        load_recipe(path)


def test_hostile_files_are_refused_at_once(tmp_path: Path) -> None:
    """Parts of parts that are repeated, a file of 10 MB, and too many rows."""
    levels = "- &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"- &{name} [{','.join([f'*{before}'] * 10)}]\n"
        for before, name in itertools.pairwise("abcdefghijkl")
    )
    start = time.process_time()
    for text, message in (
        (f"groups:\n{levels}name: z\nsource: *l\n", r"source: \[\[\[.* is not text"),
        ("groups: &g [*g]\nname: z\nsource: *g\n", r"source: \[.* is not text"),
        (f"name: z\ndescription: {'x' * 10**7}\ngroups: [{{}}]\n", "has 100000.. bytes, but at m"),
        (f"name: z\ngroups: [{','.join(['{}'] * 5_000)}]\n", "groups: 5000 rows, but 1 to 64"),
    ):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, "utf-8")
        with pytest.raises(InvalidValueError, match=message):
            load_recipe(path)
    assert time.process_time() - start < 20


def test_the_recipe_on_the_reference_page_is_valid() -> None:
    page = Path(__file__).parents[3].joinpath("docs/reference/recipes.md").read_text("utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    assert recipe_from_fields(load(example)).name == "my-recipe"
    keys = [*(field.value for field in Field), *(ratio.value for ratio in Ratio)]
    assert [key for key in keys if f"`{key}`" not in page] == []
