"""Recipes as plain data, as in YAML files, and back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.policy import GroupKind, InvalidValueError, shown
from advisor.policy.ratios import Powers, Ratio
from advisor.recipes.recipe import Field, Recipe, Row, check_row_count
from fslr.profile_files import load_fields

_MAX_FILE_BYTES = 2**20
_TEXTS = ("name", "description", "source")
_LISTS = ("optimizers", "covers", "conditions")
_KEYS = (*_TEXTS, *_LISTS, "groups")
_KINDS = {kind.value.replace(" ", "_"): kind for kind in GroupKind if kind is not GroupKind.UNKNOWN}
_FIELDS = {entry.value: entry for entry in Field}
_RATIOS = {ratio.value: ratio for ratio in Ratio}
_FLAGS = ("residual_output", "in_block")
_SELECTORS = ("kinds", *_FLAGS, "optimizers")


def load_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a YAML or JSON file.

    Raises:
        ProfileFileError: The file cannot be read, or is not YAML or JSON.
        InvalidValueError: The file is larger than 1 MiB, or does not contain a valid recipe.
    """
    file = Path(path)
    size = file.stat().st_size if file.is_file() else 0
    if size > _MAX_FILE_BYTES:
        raise InvalidValueError(
            "recipe",
            f"the file has {size} bytes, but at most {_MAX_FILE_BYTES} are allowed; a recipe is a "
            "short table",
        )
    return recipe_from_fields(load_fields(path))


def recipe_from_fields(fields: Any) -> Recipe:
    """Return the recipe of plain data, checked.

    Args:
        fields: A mapping, as in the files of the shipped recipes.

    Raises:
        InvalidValueError: A key, a kind, a field, a ratio or a family is not known, a value has
            the wrong type, an exponent is not finite or too large, or a row can never apply.
    """
    table = _mapping("recipe", fields)
    _check_keys("recipe", table, _KEYS)
    texts = {key: _text(key, table.get(key, "")) for key in _TEXTS}
    name = texts.pop("name")
    covers = [
        _known(f"covers[{i}]", "ratio", word, _RATIOS)
        for i, word in enumerate(_texts("covers", table.get("covers", [])))
    ]
    given = _list("groups", table.get("groups", []))
    check_row_count(len(given))
    rows = [_row(f"groups[{i}]", row) for i, row in enumerate(given)]
    return Recipe.of(
        name,
        rows,
        **texts,
        optimizers=_texts("optimizers", table.get("optimizers", [])),
        covers=covers,
        conditions=_texts("conditions", table.get("conditions", [])),
    )


def recipe_to_fields(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data; :func:`recipe_from_fields` reads it."""
    fields: dict[str, Any] = {"name": recipe.name}
    for key in ("description", "source"):
        if getattr(recipe, key):
            fields[key] = getattr(recipe, key)
    if recipe.optimizers:
        fields["optimizers"] = list(recipe.optimizers)
    if recipe.covers:
        fields["covers"] = [ratio.value for ratio in recipe.covers]
    if recipe.conditions:
        fields["conditions"] = list(recipe.conditions)
    fields["groups"] = [_row_fields(row) for row in recipe.rows]
    return fields


def _row_fields(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if row.kinds:
        fields["kinds"] = [kind.value.replace(" ", "_") for kind in row.kinds]
    fields |= {name: getattr(row, name) for name in _FLAGS if getattr(row, name) is not None}
    if row.optimizers:
        fields["optimizers"] = list(row.optimizers)
    for entry, powers in row.powers.items():
        fields[entry.value] = {ratio.value: _plain(power) for ratio, power in powers.exponents}
    return fields


def _plain(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _row(path: str, fields: Any) -> Row:
    table = _mapping(path, fields)
    _check_keys(path, table, (*_SELECTORS, *_FIELDS))
    for name in _FLAGS:
        if not isinstance(table.get(name), bool | None):
            raise InvalidValueError(f"{path}.{name}", f"{shown(table[name])} is not true or false")
    kinds = [
        _known(f"{path}.kinds[{i}]", "kind", word, _KINDS)
        for i, word in enumerate(_texts(f"{path}.kinds", table.get("kinds", [])))
    ]
    if len({*kinds}) < len(kinds):
        raise InvalidValueError(f"{path}.kinds", "a kind is given twice; remove one of the two")
    given = {
        entry: _powers(f"{path}.{name}", table[name])
        for name, entry in _FIELDS.items()
        if table.get(name) is not None
    }
    return Row(
        tuple(kinds),
        table.get("residual_output"),
        table.get("in_block"),
        tuple(_texts(f"{path}.optimizers", table.get("optimizers", []))),
        {entry: powers for entry, powers in given.items() if powers.exponents},
    )


def _powers(path: str, fields: Any) -> Powers:
    exponents: dict[Ratio, float] = {}
    for word, exponent in _mapping(path, fields).items():
        ratio = _known(path, "ratio", word, _RATIOS)
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)):
            raise InvalidValueError(f"{path}.{word}", f"{shown(exponent)} is not a number")
        try:
            exponents[ratio] = float(exponent)
        except OverflowError:
            raise InvalidValueError(
                f"{path}.{word}", f"{shown(exponent)} is too large for a number"
            ) from None
    try:
        return Powers.of(exponents)
    except InvalidValueError as error:
        raise error.under(path) from None


def _known(path: str, what: str, word: str, known: Mapping[str, Any]) -> Any:
    if word in known:
        return known[word]
    raise InvalidValueError(path, f"{shown(word)} is not a {what}; {_nearest(word, known)}")


def _check_keys(path: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise InvalidValueError(path, f"{shown(key)} is not a field; {_nearest(key, known)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}"


def _mapping(path: str, fields: Any) -> Mapping[str, Any]:
    if not isinstance(fields, Mapping) or not all(isinstance(key, str) for key in fields):
        raise InvalidValueError(path, "has no fields; write `name: value` pairs")
    return fields


def _list(path: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError(path, f"{shown(value)} is not a list")
    return value


def _texts(path: str, value: Any) -> list[str]:
    return [_text(f"{path}[{i}]", entry) for i, entry in enumerate(_list(path, value))]


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidValueError(path, f"{shown(value)} is not text")
    return value
