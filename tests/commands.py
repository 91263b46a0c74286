"""Runs the command line against a service, in one project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from typer.testing import CliRunner, Result

from advisor.cli import app


class Cli:
    """Runs commands with an address and a project.

    Args:
        address: Address of the service.
        project: Project of short names.
    """

    def __init__(self, address: str, project: str) -> None:
        self._env = {"ADVISOR_ADDRESS": address, "ADVISOR_PROJECT": project, "COLUMNS": "200"}

    def run(
        self, *arguments: str, ok: bool | None = True, env: Mapping[str, str | None] | None = None
    ) -> Result:
        """Run a command; ``ok``: whether it must succeed or fail, None for either."""
        result = CliRunner().invoke(app, arguments, env={**self._env, **(env or {})})
        assert ok is None or (result.exit_code == 0) == ok, result.output
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)
