"""A browser, and a service to look at with it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from fslr import AdvisorClient
from tests.redis_servers import free_port
from tests.web.browsing import SCREENSHOTS, Page, browser_program
from tests.web.service import Run, WebService, register

_AXE = "axe-core@4.10.3"
_AXE_FOLDER = SCREENSHOTS.parent / "axe"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start one browser for all tests."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    program = browser_program()
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    """Run a service with a run of 12 measurements, and one that only observes."""
    folder = tmp_path_factory.mktemp("data")
    with WebService(folder, http=free_port()) as running:
        with AdvisorClient(running.address) as client:
            register(client)
            for name, observe_only in (("night", False), ("plain", True)):
                run = Run(client, name, observe_only=observe_only)
                run.measure(12)
                run.close()
            # The last metric by name has no finite value, which hides its own chart only.
            for step in (0, 25, 50):
                client.report_run_metrics("night", step, {"auc": 0.5, "loss": float("nan")})
        yield running


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe-core, which npm installs once; empty: it cannot."""
    script = _AXE_FOLDER / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        _AXE_FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(_AXE_FOLDER), "--prefer-offline", _AXE]
        options = ["--ignore-scripts", "--no-audit", "--no-fund"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([*command, *options], capture_output=True, check=True, timeout=120)
    return script.read_text("utf-8") if script.is_file() else ""


@pytest.fixture
def desk(chromium: Any, service: WebService) -> Iterator[Page]:
    """Return a page whose console and security policy must stay silent."""
    with Page(chromium, service.url, viewport={"width": 1400, "height": 900}) as page:
        yield page
        assert page.problems == []
