"""The file with all shipped recipes, made from their YAML files."""

from __future__ import annotations

import json
from pathlib import Path

from advisor.recipes.recipe_fields import load_recipe, recipe_to_fields


def tables_text() -> str:
    """Return what ``tables.json`` contains if it is up to date: a line for each recipe.

    Raises:
        InvalidValueError: A YAML file does not contain a valid recipe.
        ProfileFileError: PyYAML is not installed.
    """
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    lines = [
        f"{json.dumps(file.stem)}: {json.dumps(recipe_to_fields(load_recipe(file)))}"
        for file in files
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"
