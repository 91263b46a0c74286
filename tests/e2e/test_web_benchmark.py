"""The benchmark of the web page runs at a small size and prints every figure."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.comparing.kinds import kind_of
from benchmarks.comparing.reading import figures_of


@pytest.mark.long
def test_a_small_run_prints_every_figure() -> None:
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    done = CliRunner().invoke(app, ["web", "--quick", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["groups"], found["points"], found["sse_clients"]) == (500, 40, 8)
    for name in (
        "first_view_ms",
        "first_view_script_ms",
        "draw_ms_10k_groups",
        "sse_events_per_s",
        "rpc_ratio",
    ):
        assert found[name] > 0, name
    assert 10_000 < found["bytes"] < 300_000
    assert found["web_mib_with_pages"] > found["web_mib_without_pages"] > 20
    low, high = found["rpc_spread"]
    assert low <= found["rpc_ratio"] <= high
    unknown = [path for path in figures_of(found) if kind_of(path) is None]
    assert unknown == []
