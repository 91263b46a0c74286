"""The reference pages name every setting, metric and error reason, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from advisor.cli import app
from advisor.observability.metrics import Metrics
from advisor.server.settings import Settings
from fslr.errors import BY_REASON

PAGES = Path(__file__).parents[3] / "docs" / "reference"


def table(page: str) -> dict[str, list[str]]:
    """Return the rows of the first table of a page, by their first cell."""
    below = (PAGES / f"{page}.md").read_text("utf-8")
    rows = [line.strip("|").split("|") for line in below.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows}


def test_every_setting_has_its_default() -> None:
    rows = table("settings")
    assert set(rows) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if field.default_factory is None:
            shown = "none" if field.default is None else str(field.default).lower()
            assert rows[name][0].strip("`").replace(",", "") == shown, name


def test_every_metric_is_explained() -> None:
    assert set(table("metrics")) == set(Metrics().names())


def test_every_error_reason_is_explained() -> None:
    assert set(table("errors")) == set(BY_REASON)


@pytest.mark.parametrize("page", ["settings", "metrics", "errors"])
def test_no_row_is_empty(page: str) -> None:
    assert all(all(cells) for cells in table(page).values())


def test_every_setting_is_an_option_of_the_command_and_names_its_variable() -> None:
    command: Any = get_command(app)
    options = {option.name: option for option in command.commands["serve"].params}
    assert set(Settings.model_fields) <= set(options)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in options[name].opts
        assert f"ADVISOR_{name.upper()}" in options[name].help
