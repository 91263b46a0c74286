"""Creates and revokes tokens with commands, as an operator does."""

from __future__ import annotations

from tests.commands import Cli


class Tokens:
    """Creates and revokes tokens.

    Args:
        redis_url: Redis of the service.
        project: Default project of the tokens.
    """

    def __init__(self, redis_url: str, project: str) -> None:
        self._where = ("--redis-url", redis_url)
        self._project = project
        self._cli = Cli("127.0.0.1:1", "default")

    def create(self, role: str, project: str = "", name: str = "") -> dict[str, str]:
        """Create a token, by default named after its role; return what the command prints."""
        made: dict[str, str] = self._cli.json(
            *("token", "create", name or f"a-{role}", "--role", role),
            *("--project", project or self._project, *self._where),
        )
        return made

    def run(self, *arguments: str, project: str = "", ok: bool = True) -> str:
        """Run a ``token`` command; return what it prints."""
        where = ("--project", project or self._project, *self._where)
        return self._cli.run("token", *arguments, *where, ok=ok).output
