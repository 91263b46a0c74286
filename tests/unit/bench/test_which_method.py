"""The table that says which method to use, from made-up records."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.report.pages import render_block
from benchmarks.report.which_method import ROWS, which_method
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.results import with_figures
from tests.results import case as made_case
from tests.results import sweep, transfer

case = partial(made_case, method="measured")


def with_method(made: dict[str, Any], method: str, best_loss: float) -> dict[str, Any]:
    """Return a made-up case with one more method, whose best learning rate does not move."""
    base, (standard, measured, *_) = made["base"], made["methods"]
    record = {**measured, "method": method, "sweep": sweep(-6, best_loss)}
    return {**made, "methods": [*made["methods"], with_figures(record, base, standard)]}


def rows(cases: list[dict[str, Any]]) -> dict[str, list[str]]:
    lines = which_method(transfer(cases)).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for name, *rest in cells}


def test_each_case_of_the_benchmark_has_one_row() -> None:
    for each in CASES:
        assert sum(row.has(each.axis, each.optimizer) for row in ROWS) == 1, each.name


def test_the_simplest_method_that_is_not_worse_is_to_be_used() -> None:
    deep = with_method(case("depth", "res_mlp", gain=0.02), "hybrid", 1.9)
    wide = with_method(case("width", "res_mlp", gain=0.02), "mup", 1.98)
    other = case("width", "res_mlp", "SGD", plain=0.0, gain=0.0)
    found = rows([deep, wide, other])
    assert found["depth"][:2] == ["1", "**hybrid (depth-muP)**"]
    assert found["depth"][4:] == ["-0.005 ± 0.011", "hybrid (depth-muP): -0.085 ± 0.011"]
    # muP equals measured, which needs more.
    assert found["width, with Adam or AdamW"][1] == "**muP**"
    assert found["width, with Adam or AdamW"][3] == "muP: -0.005 ± 0.011"
    assert found["width, with SGD"][1] == "**standard**"


def test_what_is_not_measured_is_never_shown_as_zero() -> None:
    made = [case("width", "char_gpt_pre", "Muon"), case("depth"), case("depth", "res_mlp")]
    made[2] = with_method(made[2], "depth_mup", 1.9)
    found = rows(made)
    assert found["number of experts"] == ["0", *["not measured"] * 5]
    assert found["width, with other optimizers"][3:] == [
        "no rule", found["width, with other optimizers"][4], "not measured",
    ]  # fmt: skip
    assert found["depth"][1] == "**measured**"  # depth-muP is in one of two cases only
    assert found["depth"][3].endswith("(1 of 2)")
    assert found["depth"][5] == "not measured"
    assert found["rank of LoRA"][3:] == ["no rule", "not measured", "not measured"]


def test_the_cost_of_measuring_is_that_of_the_stored_figures() -> None:
    ours = {"measurements": 4, "overhead": 0.0234}
    figures = {"overhead": {"ours": ours, "steps": 500, "parameters": 1_250_000}}
    text = " ".join(render_block("measuring-cost", figures).split())
    assert "measuring 4 times in 500 steps of a model with 1.2 million parameters adds 2.3%" in text
