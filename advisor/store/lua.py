"""Loads the store's Lua scripts, with the constants that they share with Python in front."""

from __future__ import annotations

from importlib import resources

from redis.asyncio import Redis

from advisor.store.redis.commands import Script, ScriptError
from advisor.store.replies import OUTCOMES

_WRITE = "write"


def load_script(redis: Redis, *names: str) -> Script:
    """Return the script that consists of the named files, in order.

    Args:
        redis: The client that will run it.
        names: File names without ``.lua``. A script that starts with ``write`` is a write: its
            calls wait for replicas if the client is configured to.
    """
    texts = [shared_constants(), *(script_text(name) for name in names)]
    return Script(redis, "\n".join(texts), writes=names[0] == _WRITE)


def script_text(name: str) -> str:
    """Return the text of one file, without the shared constants."""
    folder = resources.files("advisor.store").joinpath("scripts")
    return folder.joinpath(f"{name}.lua").read_text("utf-8")


def shared_constants() -> str:
    """Return Lua tables with the outcomes and the error words, under their names in Python."""
    tables = [
        _table(kind.__name__, {member.name: str(member.value) for member in kind})
        for kind in OUTCOMES
    ]
    errors = {member.name: f"'{member.value}'" for member in ScriptError}
    return "\n".join([*tables, _table(ScriptError.__name__, errors)])


def _table(name: str, fields: dict[str, str]) -> str:
    inner = ", ".join(f"{key} = {value}" for key, value in fields.items())
    return f"local {name} = {{{inner}}}"
