"""The transfer benchmark runs a case with a real service, and skips a case that is stored."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.__main__ import app
from benchmarks.transfer import command
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.figures import best_octave
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.sweeps import ADVISED, PLAIN, base_sweep, big_sweep

_BASE = Setting("res_mlp", width=16, depth=2, batch_size=16)
_CASE = Case("width", "Adam", _BASE, replace(_BASE, width=128), (-6, -8), steps=40, seeds=(0, 1))


def test_advice_changes_the_big_model_and_is_reproducible() -> None:
    with Bench(processes=1) as bench:
        base = base_sweep(bench, _CASE, ADVISED)
        assert set(base.profiles) >= {(octave, seed) for octave in (-6, -8) for seed in (0, 1)}
        only = replace(_CASE, octaves=(best_octave(base.grid) or 0,))
        assert only.octaves != (0,)
        base.losses = {float(octave): base.losses[octave] for octave in only.octaves}
        plain = big_sweep(bench, only, PLAIN, base)
        advised = big_sweep(bench, only, ADVISED, base)
        again = big_sweep(bench, only, ADVISED, base)
    assert advised.unanswered == 0
    assert advised.losses == again.losses
    octave = only.octaves[0]
    assert advised.losses[octave] != plain.losses[octave]


@pytest.mark.long
def test_the_command_runs_a_stored_case_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "chosen_cases", lambda *_args, **_options: [_CASE])
    file, folder = tmp_path / "transfer.json", tmp_path / "trainings"
    words = ["transfer", "--json", "--method", "hybrid"]
    words += ["--processes", "1", "--out", str(file)]

    def run() -> Result:
        done = CliRunner().invoke(app, [*words, "--resume", str(folder)], catch_exceptions=False)
        assert done.exit_code == 0
        return done

    printed = json.loads(run().stdout)
    [case] = printed["cases"]
    assert (case["axis"], case["model"], case["optimizer"]) == ("width", "res_mlp", "Adam")
    assert case["unanswered"] == 0
    assert printed["processes"] == 1
    assert {"commit", "machine", "versions", "within_one_octave", "median_regret"} <= set(printed)
    assert (printed["figures_of"], printed["median_regret"]) == ("hybrid", case["regret"])
    standard, hybrid = json.loads(file.read_text("utf-8"))["cases"]
    assert (standard["method"], hybrid) == ("standard", case)
    assert hybrid["shift"] != standard["shift"]
    second = run()
    assert json.loads(second.stdout)["cases"] == printed["cases"]
    assert " ".join(second.stderr.split()).endswith("transfer.json: 1 case.")
    assert "trainings" not in second.stderr
    # Without the file, the trainings are read from the folder.
    file.unlink()
    before = sorted(folder.rglob("*"))
    assert json.loads(run().stdout)["cases"] == printed["cases"]
    assert sorted(folder.rglob("*")) == before


_KILLED = """
import multiprocessing, threading, time
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.training import Training

if __name__ == "__main__":
    setting = Setting("res_mlp", width=16)
    with Bench(processes=1) as bench:
        threading.Thread(
            target=bench.run, args=([Training(setting, setting, "Adam", 0.001, 10**6, 0)],)
        ).start()
        while not (workers := multiprocessing.active_children()):
            time.sleep(0.05)
        time.sleep(3)  # until it trains
        print(*(worker.pid for worker in workers), flush=True)
        time.sleep(60)
"""


def test_workers_end_when_the_benchmark_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(_KILLED, "utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        run.kill()
    assert workers
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, f"still running: {workers}"
        time.sleep(0.1)
