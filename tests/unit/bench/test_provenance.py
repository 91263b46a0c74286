"""Figures have their provenance, without private names of the machine."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
from pathlib import Path

import pytest

from benchmarks.provenance import PROVENANCE, emit, provenance
from benchmarks.report.paths import FIGURES
from benchmarks.report.stored import load_figures

_ROOT = Path(__file__).parents[3]


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_the_commit_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert provenance()["commit"] == "unknown"
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "code").write_text("a")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--quiet", "--message", "a")
    assert provenance()["commit"] == _git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "code").write_text("b")
    assert provenance()["commit"] == _git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_written_figures_do_not_make_the_commit_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _git(tmp_path, "init", "--quiet")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for file in (tmp_path / "code", results / "rpc.json"):
        file.write_text("a")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--quiet", "--message", "a")
    (results / "rpc.json").write_text("b")
    assert provenance()["commit"] == _git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "code").write_text("b")
    assert provenance()["commit"] == _git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_no_host_user_or_folder_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["x", "rpc", "--quick", "--json", "--peer-python", "optuna=/opt/there/bin/python"]
    monkeypatch.setattr("sys.argv", [*argv, "--out", str(tmp_path / "rpc.json")])
    found = provenance()
    assert found["command"] == "python -m benchmarks rpc --quick --peer-python optuna=python"
    text = json.dumps(found)
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(_ROOT) not in text


def test_the_command_leaves_out_options_that_select_a_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["ideas", "--idea", "batch", "--idea", "once", "--quick"]
    monkeypatch.setattr("sys.argv", ["x", *words])
    assert provenance()["command"] == "python -m benchmarks " + " ".join(words)
    assert provenance(without=["--idea"])["command"] == "python -m benchmarks ideas --quick"


def test_provenance_is_added_to_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "some.json"
    emit({"models": {"a": 1.5}}, as_json=True, out=out)
    written = json.loads(out.read_text("utf-8"))
    assert json.loads(capsys.readouterr().out) == written
    assert written.pop("models") == {"a": 1.5}
    assert set(written) == set(PROVENANCE) - {"note"}
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["memory_gib"] >= 1
    assert written["versions"]["python"] == platform.python_version()
    assert {"torch", "grpcio", "redis", "fslr-advisor"} < set(written["versions"])


def test_nothing_is_printed_by_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit({"a": 1}, as_json=False, out=None)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(load_figures(_ROOT / FIGURES)))
def test_every_stored_file_has_its_provenance(name: str) -> None:
    figures = load_figures(_ROOT / FIGURES)[name]
    assert set(PROVENANCE) - {"note"} <= set(figures)
    words = {name, name.replace("-", " --")}  # transfer --larger writes transfer-larger
    assert figures["command"].startswith((
        *(f"python -m benchmarks {word}" for word in words),
        f"make {name}",
    ))
    assert len(figures["commit"].removesuffix("-dirty")) == 40
    assert figures["machine"]["cpu"]
    assert figures["machine"]["cores"] >= 1
    assert figures["versions"]["fslr-advisor"]
