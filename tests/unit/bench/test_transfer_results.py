"""Records of the transfer benchmark: writing, merging and skipping; the table of cases."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.transfer.cases import AXES, CASES, chosen_cases
from benchmarks.transfer.optimizers import OPTIMIZERS
from benchmarks.transfer.results import (
    document,
    identity,
    is_finished,
    load,
    merged,
    record,
    save,
)
from benchmarks.transfer.settings import MODELS
from benchmarks.transfer.sweeps import CaseSweeps, Sweep

CASE = replace(CASES[0], seeds=(0,), octaves=(-1, -2, -3))


def _sweeps(advised: float = 1.0) -> CaseSweeps:
    def sweep(losses: list[float], seconds: float) -> Sweep:
        return Sweep(
            losses={-1 - i: [loss] for i, loss in enumerate(losses)},
            seconds={-1 - i: [seconds] for i in range(len(losses))},
        )

    return CaseSweeps(
        sweep([2.0, 1.0, 2.0], 1.0),
        sweep([math.inf, 3.0, 1.5, 2.0], 10.0),
        sweep([2, advised, 2], 12),
    )


def test_a_record_has_the_figures_and_all_losses() -> None:
    found = record(CASE, _sweeps())
    assert (found["axis"], found["model"], found["optimizer"]) == ("width", "char_gpt_pre", "Adam")
    assert (found["shift_plain"], found["shift_advised"]) == (-1, 0)
    assert found["regret"] == -0.5
    assert (found["loss_plain"], found["loss_advised"], found["loss_best_plain"]) == (3, 1, 1.5)
    assert found["base_learning_rate"] == 0.25
    assert found["sweeps"]["plain"] == {"0.5": [None], "0.25": [3.0], "0.125": [1.5], "0.0625": [2]}
    assert found["search_saved"] == pytest.approx(1 - 12 / 40)
    assert found["search_saved_with_base"] == pytest.approx(1 - (3 + 12) / 40)
    assert found["at_edge"] == []
    json.dumps(found, allow_nan=False)


def test_a_record_names_the_sweeps_with_an_optimum_at_an_edge() -> None:
    assert record(CASE, _sweeps(advised=5.0))["at_edge"] == ["advised"]


def test_a_new_record_replaces_the_old_one_of_its_case() -> None:
    first, second = record(CASE, _sweeps()), record(replace(CASE, optimizer="SGD"), _sweeps())
    again = record(replace(CASE, seeds=(0, 1)), _sweeps(advised=1.2))
    assert merged(merged([], first), second) == [first, second]
    assert merged([first, second], again) == [again, second]


def test_a_case_is_finished_if_its_record_has_the_same_sizes_and_seeds(tmp_path: Path) -> None:
    file = tmp_path / "transfer.json"
    assert load(file) == ([], {})
    save(file, document([record(CASE, _sweeps())], {"commit": "abc"}))
    cases, source = load(file)
    assert source == {"commit": "abc"}
    assert is_finished(CASE, cases)
    assert not is_finished(replace(CASE, seeds=(0, 1, 2)), cases)
    assert not is_finished(replace(CASE, steps=7), cases)
    assert not is_finished(replace(CASE, big=CASE.base), cases)
    assert not is_finished(replace(CASE, axis="depth"), cases)
    written = json.loads(file.read_text("utf-8"))
    assert written["commit"] == "abc"
    assert written["within_one_octave"] == 1.0
    assert written["median_regret"] == -0.5


def test_the_table_covers_every_axis_model_and_optimizer_without_duplicates() -> None:
    assert {case.axis for case in CASES} == set(AXES)
    assert {case.model for case in CASES} == set(MODELS)
    assert {case.optimizer for case in CASES} == set(OPTIMIZERS)
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(len(case.seeds) >= 3 for case in CASES)
    assert all(identity(case)["base"] != identity(case)["big"] for case in CASES)


def test_the_quick_form_has_one_case_per_axis_and_one_seed() -> None:
    quick = chosen_cases(is_quick=True)
    assert [case.axis for case in quick] == list(AXES)
    assert {case.seeds for case in quick} == {(0,)}


def test_cases_are_filtered_by_axis_model_and_optimizer() -> None:
    assert {case.axis for case in chosen_cases("depth")} == {"depth"}
    [chosen] = chosen_cases("width", "res_mlp", "SGD", is_quick=True)
    assert (chosen.name, chosen.seeds) == ("width res_mlp SGD", (0,))
    assert chosen_cases("lora_rank", "res_mlp") == []


def _full_file(tmp_path: Path) -> Path:
    file = tmp_path / "transfer.json"
    records = [{**record(case, _sweeps()), **identity(case)} for case in CASES]
    save(file, document(records, {"commit": "abc", "processes": 2}))
    return file


def test_a_file_with_all_cases_is_printed_without_training(tmp_path: Path) -> None:
    file = _full_file(tmp_path)
    before = file.read_text("utf-8")
    result = CliRunner().invoke(app, ["transfer", "--axis", "width", "--json", "--out", str(file)])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {case["axis"] for case in printed["cases"]} == {"width"}
    cases, source = load(file)
    assert len(cases) == len(CASES)
    assert source == {"commit": "abc", "processes": 2}
    assert file.read_text("utf-8") == before


def test_quick_cases_do_not_replace_full_ones(tmp_path: Path) -> None:
    file = _full_file(tmp_path)
    before = file.read_text("utf-8")
    refused = CliRunner().invoke(app, ["transfer", "--quick", "--out", str(file)])
    assert refused.exit_code == 2
    assert "several seeds" in " ".join(refused.output.split())
    assert file.read_text("utf-8") == before


def test_an_unknown_case_is_rejected_with_a_list_of_the_known_ones() -> None:
    refused = CliRunner().invoke(app, ["transfer", "--axis", "lora_rank", "--model", "res_mlp"])
    assert refused.exit_code == 2
    assert "lora_rank lora_gpt AdamW" in " ".join(refused.output.replace("│", " ").split())
    assert CliRunner().invoke(app, ["transfer", "--axis", "height"]).exit_code == 2
