"""The Lua scripts and Python use the same outcomes and error words."""

from __future__ import annotations

import re
from enum import Enum
from importlib import resources

import pytest

from advisor.store.lua import script_text, shared_constants
from advisor.store.redis.commands import ScriptError
from advisor.store.replies import (
    OUTCOMES,
    AliasOutcome,
    DeleteAllOutcome,
    DeleteOutcome,
    DeleteRunOutcome,
    DeleteVersionsOutcome,
    RegisterOutcome,
    ReportMetricsOutcome,
    ResolveOutcome,
    TokenOutcome,
    VersionOutcome,
)

SCRIPTS = sorted(
    path.name.removesuffix(".lua")
    for path in resources.files("advisor.store").joinpath("scripts").iterdir()
)
KINDS: tuple[type[Enum], ...] = (*OUTCOMES, ScriptError)
CONSTANTS = {kind.__name__: kind for kind in KINDS}
USES = re.compile(rf"\b({'|'.join(CONSTANTS)})\.(\w+)")
OWNERS: dict[str, type[Enum]] = {
    "delete_all_versions": DeleteAllOutcome,
    "delete_versions": DeleteVersionsOutcome,
    "delete_profile": DeleteOutcome,
    "delete_run": DeleteRunOutcome,
    "register_profile": RegisterOutcome,
    "report_metrics": ReportMetricsOutcome,
    "resolve_profile": ResolveOutcome,
    "set_alias": AliasOutcome,
    "set_version": VersionOutcome,
    "set_token": TokenOutcome,
    "write": ScriptError,
}


def code(name: str) -> str:
    """Return a script without its comments."""
    return re.sub(r"--.*", "", script_text(name))


def test_the_constants_in_front_of_the_scripts_are_those_of_python() -> None:
    tables = dict(re.findall(r"^local (\w+) = \{(.*)\}$", shared_constants(), re.MULTILINE))
    assert tables.keys() == CONSTANTS.keys()
    for name, kind in CONSTANTS.items():
        fields = dict(re.findall(r"(\w+) = '?([^',]+)'?", tables[name]))
        assert fields == {member.name: str(member.value) for member in kind}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_uses_only_constants_that_python_defines(script: str) -> None:
    for kind, member in USES.findall(code(script)):
        assert member in CONSTANTS[kind].__members__, f"{script}.lua uses {kind}.{member}"


@pytest.mark.parametrize(("script", "kind"), OWNERS.items())
def test_each_constant_is_used_by_its_script(script: str, kind: type[Enum]) -> None:
    used = {member for name, member in USES.findall(code(script)) if name == kind.__name__}
    assert used == set(kind.__members__)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_returns_a_bare_number(script: str) -> None:
    assert not re.findall(r"return \{?-?\d", code(script))
    assert not re.findall(r"\b(?:store_answer|extend)\(\{-?\d", code(script))
