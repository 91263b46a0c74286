"""The modules that an import loads, tested in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import advisor.report
import fslr.training

_SERVER = ("redis", "structlog", "typer", "rich", "pydantic", "uvloop", "advisor.server.bootstrap")
_TRAINING = sorted(path.stem for path in Path(fslr.training.__file__).parent.glob("[a-z]*.py"))
_REPORT = sorted(path.stem for path in Path(advisor.report.__file__).parent.glob("[a-z]*.py"))
_RENDERING = ("rich", "typer", "redis", "grpc", "advisor.cli", "advisor.server")
_BESIDES = ("torch", "jax", "matplotlib")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("fslr", (*_SERVER, *_BESIDES, "advisor", "google.rpc", "grpc")),
        *(
            (f"fslr.training.{name}", (*_SERVER, *_BESIDES, "advisor", "google.rpc", "grpc"))
            for name in _TRAINING
        ),
        ("fslr.testing", (*_SERVER, *_BESIDES, "advisor", "google.rpc", "grpc", "pytest")),
        ("fslr.torch", (*_SERVER, "jax", "matplotlib", "advisor", "google.rpc")),
        ("fslr.jax", (*_SERVER, "torch", "flax", "equinox", "matplotlib", "advisor", "google.rpc")),
        ("advisor.policy", (*_SERVER, *_BESIDES, "grpc", "google.protobuf", "fslr", "asyncio")),
        ("advisor.local.in_process", (*_SERVER, *_BESIDES, "google.rpc")),
        *((f"advisor.report.{name}", (*_RENDERING, *_BESIDES)) for name in _REPORT),
        ("advisor.export.formats", (*_RENDERING, *_BESIDES)),
        ("advisor.export.sources", (*_RENDERING, *_BESIDES)),
        ("advisor.server.bootstrap", _BESIDES),
    ],
)
def test_importing_loads_nothing_unwanted(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[m for m in {unwanted!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
