"""Fixtures for all tests: a service process with an embedded Redis, and a client."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from tests.commands import Cli
from tests.fork_server import start_service

# Machines that run these tests are shared: a slow example is not a failure. The short profile is
# the default; `make test-long` selects the long one.
_repeatable = bool(os.environ.get("CI"))
settings.register_profile("short", max_examples=30, deadline=None, derandomize=_repeatable)
settings.register_profile("long", max_examples=60, deadline=None, derandomize=_repeatable)
settings.register_profile("fuzz", max_examples=1_000, deadline=None)
settings.load_profile("short")

# Channels that tests open themselves call services on this machine, whatever proxy it has.
os.environ.setdefault("no_grpc_proxy", "127.0.0.1,localhost")

# What is imported to collect the tests stays until the end: the garbage collector need not look.
gc.disable()

_projects = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark that only this folder uses."""
    config.addinivalue_line(
        "markers",
        "compatibility(framework, *what, refused=''): shows what works with a framework, for "
        "docs/reference/compatibility.md",
    )


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _forked_services() -> Iterator[None]:
    """Fork services from a process that has already imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalServer, "_launch", staticmethod(start_service))
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    with LocalServer(None, "--max-message-bytes", str(2**20)) as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[AdvisorClient]:
    with AdvisorClient(server.address) as connected:
        yield connected


@pytest.fixture
def project() -> str:
    """Return a project that no other test uses."""
    return f"test-{next(_projects)}"


@pytest.fixture
def cli(server: LocalServer, project: str) -> Cli:
    return Cli(server.address, project)


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    """Use one thread: faster for small tensors, and sums always add up in the same order."""
    torch = sys.modules.get("torch")  # not imported here, which takes seconds
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
