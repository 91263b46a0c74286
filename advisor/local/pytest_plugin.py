"""Pytest fixtures that start a real service with its own Redis, for tests of training code.

The plugin is loaded if ``fslr-advisor`` is installed, and does nothing until a test asks for one of
its fixtures. They need the extra ``server``:

``fslr_service``
    A running service, as :class:`.LocalServer`; ``fslr_service.address`` is its ``host:port``. By
    default it runs for the whole test session. The option ``fslr_service_scope`` of pytest's
    configuration changes that to ``module``, ``class`` or ``function``.
``fslr_project``
    The name of a project that no other test uses. Profiles, policies and runs live in projects, so
    tests that name it do not see those of others.
``fslr_advisor``
    An :class:`fslr.AdvisorClient` of the service.

The service gets none of the ``ADVISOR_*`` and ``FSLR_*`` variables of the environment, so it can
not use the Redis of a deployment. Neither does a test that uses ``fslr_advisor``.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

_SCOPES = ("session", "module", "class", "function")
_OPTION = "fslr_service_scope"
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to pytest's configuration file."""
    parser.addini(
        _OPTION,
        f"how long an advisor service of the fixture fslr_service runs: {', '.join(_SCOPES)}",
        default=_SCOPES[0],
    )


def _scope(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ARG001 - pytest names both
    """Return the scope of the service.

    Raises:
        UsageError: The configuration names no scope.
    """
    scope = config.getini(_OPTION)
    if scope not in _SCOPES:
        raise pytest.UsageError(f"{_OPTION} is {scope!r}; it must be one of {', '.join(_SCOPES)}")
    return scope


def _forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Remove the variables that set up the service or its client."""
    for name in list(os.environ):
        if name.startswith(("ADVISOR_", "FSLR_")):
            patch.delenv(name)


@pytest.fixture(scope=_scope)
def fslr_service() -> Iterator[Any]:
    """Run a service with an embedded Redis on a free port of this machine."""
    from advisor.local.server import LocalServer, LocalServerError  # noqa: PLC0415 - only if used

    server = LocalServer()
    try:
        with pytest.MonkeyPatch.context() as patch:
            _forget_settings(patch)
            server.__enter__()
    except LocalServerError as error:
        pytest.fail(f"fslr_service: {error}", pytrace=False)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def fslr_project() -> str:
    """Return the name of a project that no other test uses."""
    return f"test-{next(_numbers)}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def fslr_advisor(fslr_service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client of the service."""
    from fslr import AdvisorClient  # noqa: PLC0415 - only if used

    _forget_settings(monkeypatch)
    with AdvisorClient(fslr_service.address, actor="pytest") as client:
        yield client
