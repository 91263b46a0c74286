"""The pytest fixtures that start a real service, in test sessions of their own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

import pytest

from advisor.local.server import LocalServer
from tests.docs.blocks import blocks

pytest_plugins = ["pytester"]

_PLUGIN = "advisor.local.pytest_plugin"
_ROOT = Path(__file__).parents[3]
_IS_REGISTERED = any(entry.value == _PLUGIN for entry in entry_points(group="pytest11"))

_numbers = itertools.count(1)

_TESTS = """
    import socket

    import pytest
    import fslr
    from tests.building import content_message

    addresses = set()

    @pytest.mark.parametrize("again", [False, True])
    def test_a_profile_of_this_test(fslr_advisor, fslr_project, fslr_service, again):
        assert list(fslr_advisor.list_profiles(project=fslr_project)) == []
        content = content_message()
        stored = fslr_advisor.register_profile("char-gpt", content, project=fslr_project)
        assert (stored.created, stored.profile.version) == (True, 1)
        assert fslr_advisor.address == fslr_service.address
        addresses.add(fslr_service.address)

    def test_how_many_services_ran(request):
        assert len(addresses) == EXPECTED
"""


def launch(arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "advisor", *arguments],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(autouse=True)
def _modules_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the sessions import: parts of PyTorch cannot be imported twice."""
    monkeypatch.setattr("_pytest.pytester.SysModulesSnapshot.restore", lambda _: None)


def run(pytester: pytest.Pytester, tests: str, *, ini: str = "") -> pytest.RunResult:
    """Run tests in a session of their own, in this process."""
    pytester.makeini(f"[pytest]\n{ini}")
    name = f"test_inner_{next(_numbers)}"  # so no module of another session is found
    pytester.makepyfile(**{name: textwrap.dedent(tests)})
    options = () if _IS_REGISTERED else ("-p", _PLUGIN)
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options
    )


@pytest.mark.parametrize(("scope", "services"), [("", 1), ("session", 1), ("function", 2)])
def test_a_service_runs_as_long_as_the_configuration_says(
    pytester: pytest.Pytester, scope: str, services: int
) -> None:
    ini = f"fslr_service_scope = {scope}" if scope else ""
    run(pytester, _TESTS.replace("EXPECTED", str(services)), ini=ini).assert_outcomes(passed=3)


def test_an_unknown_scope_is_reported(pytester: pytest.Pytester) -> None:
    result = run(pytester, _TESTS, ini="fslr_service_scope = day")
    output = "\n".join((*result.outlines, *result.errlines))
    assert "fslr_service_scope is 'day'; it must be one of session, module, class" in output


def test_the_environment_does_not_reach_the_service_and_its_client(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVISOR_REDIS_URL", "redis://production.invalid:6379")
    monkeypatch.setenv("FSLR_TLS_CA", "/nowhere/ca.pem")
    result = run(
        pytester, "def test_it(fslr_advisor):\n    assert fslr_advisor.status().store.available"
    )
    result.assert_outcomes(passed=1)
    assert os.environ["ADVISOR_REDIS_URL"] == "redis://production.invalid:6379"


def test_without_the_server_extra_the_failure_says_what_to_install(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = pytester.mkdir("without_typer")
    stub = "raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')"
    (missing / "typer.py").write_text(stub)
    folders = (missing, _ROOT, _ROOT / "clients" / "python")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    monkeypatch.setattr(LocalServer, "_launch", staticmethod(launch))  # not forked: it must import
    result = run(pytester, "def test_it(fslr_advisor):\n    pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the package 'typer' is not installed*fslr-advisor?server?*"])


def test_the_tests_of_the_how_to_page_pass(pytester: pytest.Pytester) -> None:
    page = _ROOT / "docs" / "how-to" / "test-your-training-code.md"
    code = [block.text for block in blocks(page) if block.language == "python"]
    (ini,) = [block.text for block in blocks(page) if block.language == "ini"]
    result = run(pytester, "\n".join(code), ini=ini.removeprefix("[pytest]\n"))
    result.assert_outcomes(passed=6)
