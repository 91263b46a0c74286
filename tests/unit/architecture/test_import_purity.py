"""The modules that an import loads, tested in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import advisor.report
import fslr.training

_SERVER = ("redis", "structlog", "typer", "rich", "pydantic", "uvloop", "advisor.server.bootstrap")
_RENDERING = ("rich", "typer", "redis", "grpc", "advisor.cli", "advisor.server")
_BESIDES = ("torch", "jax", "matplotlib")
_IMPORT = """
import importlib, sys
unwanted, modules = map(str.split, sys.argv[1:])
for module in modules:
    importlib.import_module(module)
    if loaded := [name for name in unwanted if name in sys.modules]:
        sys.exit(f"{module} loads {', '.join(loaded)}")
"""


def modules_of(package: ModuleType) -> list[str]:
    """Return the names of a package's public modules."""
    folder = Path(str(package.__file__)).parent
    return sorted(f"{package.__name__}.{path.stem}" for path in folder.glob("[a-z]*.py"))


def import_all(modules: list[str], unwanted: tuple[str, ...]) -> str:
    """Import modules in order in a new process; return which one is the first to load too much."""
    ran = subprocess.run(
        [sys.executable, "-c", _IMPORT, " ".join(unwanted), " ".join(modules)],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stderr.strip()


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (
            ["fslr", *modules_of(fslr.training)],
            (*_SERVER, *_BESIDES, "advisor", "google.rpc", "grpc"),
        ),
        (["fslr.testing"], (*_SERVER, *_BESIDES, "advisor", "google.rpc", "grpc", "pytest")),
        (["fslr.torch"], (*_SERVER, "jax", "matplotlib", "advisor", "google.rpc")),
        (
            ["fslr.jax"],
            (*_SERVER, "torch", "flax", "equinox", "matplotlib", "advisor", "google.rpc"),
        ),
        (["advisor.policy"], (*_SERVER, *_BESIDES, "grpc", "google.protobuf", "fslr", "asyncio")),
        (["advisor.local.in_process"], (*_SERVER, *_BESIDES, "google.rpc")),
        (
            [*modules_of(advisor.report), "advisor.export.formats", "advisor.export.sources"],
            (*_RENDERING, *_BESIDES),
        ),
        (["advisor.server.bootstrap"], _BESIDES),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_importing_loads_nothing_unwanted(modules: list[str], unwanted: tuple[str, ...]) -> None:
    assert not import_all(modules, unwanted)


def test_the_first_module_that_loads_something_unwanted_is_named() -> None:
    found = import_all(["json", "fslr.client.channel", "fslr"], ("grpc", "torch"))
    assert found == "fslr.client.channel loads grpc"
