"""``python -m benchmarks alternatives`` prints the comparisons that a stored file has."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

import benchmarks
from benchmarks.__main__ import app

STORED = Path(benchmarks.__file__).parent / "results" / "transfer.json"


def printed(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["alternatives", *words])
    assert result.exit_code == status, result.output
    return result.output


def test_each_axis_has_ours_against_the_best_alternative() -> None:
    content = json.loads(STORED.read_text("utf-8"))
    found = json.loads(printed("--json"))
    assert found["commit"] == content["commit"]
    assert found["axes"] == [row for row in content["axes"] if row["is_best_alternative"]]
    assert len(found["axes"]) < len(content["axes"])
    assert {"width", "depth", "every axis"} <= {row["axis"] for row in found["axes"]}
    text = printed(str(STORED))
    row = next(row for row in found["axes"] if row["axis"] == "depth")
    low, high = row["difference_interval"]
    assert f"{row['difference']:+.3f}" in text
    assert f"{low:+.3f}" in text
    assert f"{high:+.3f}" in text
    assert row["method"] in text


def test_a_file_without_comparisons_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    file.write_text("{}", "utf-8")
    refused = " ".join(printed(str(file), status=2).replace("│", " ").split())
    assert "has no comparisons of methods; give a file that the command transfer wrote" in refused
