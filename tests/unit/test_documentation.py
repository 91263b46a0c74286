"""The README's figures are those of the run that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_the_readme_s_demo_figures_are_those_of_the_stored_run() -> None:
    readme = (_ROOT / "README.md").read_text("utf-8")
    result = json.loads((_ROOT / "docs/images/demo-result.json").read_text("utf-8"))
    for row, key in (
        (r"base, width 32[^|]*", "base_loss"),
        (r"width 256, plain ", "plain_loss"),
        (r"width 256, \*\*advised\*\* ", "advised_loss"),
    ):
        found = re.search(rf"\| {row}\| \**([0-9.]+)", readme)
        assert found, row
        assert float(found[1]) == round(result[key], 3)
    assert f"ends {result['gain']:.2f} nats below plain" in readme
    assert result["gain"] >= 0.25


def test_every_file_that_the_readme_links_to_is_there() -> None:
    readme = (_ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    assert len(links) > 5
    assert [link for link in links if not (_ROOT / link).exists()] == []
