"""Records of the transfer benchmark: writing, merging and skipping; the table of cases."""

from __future__ import annotations

import json
import math
import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advisor.policy import Layout
from advisor.recipes import shipped_recipe
from benchmarks import code_version
from benchmarks.__main__ import app
from benchmarks.transfer import command
from benchmarks.transfer.by_recipe import applied, layout_of
from benchmarks.transfer.cases import (
    AXES,
    CASES,
    CHOOSING,
    LARGER,
    PARTS,
    chosen_cases,
)
from benchmarks.transfer.finished import FinishedTrainings
from benchmarks.transfer.methods import (
    DEFAULT,
    HYBRIDS,
    METHODS,
    MethodName,
    equals,
    method_of,
    same_as,
)
from benchmarks.transfer.models import build_task
from benchmarks.transfer.optimizers import OPTIMIZERS
from benchmarks.transfer.records import identity, losses_of
from benchmarks.transfer.results import (
    base_record,
    document,
    is_finished,
    load,
    merged,
    method_record,
    referred_to,
    save,
    summary,
    with_figures,
)
from benchmarks.transfer.settings import MODELS, Setting
from benchmarks.transfer.sweeps import ADVISED, Sweep
from benchmarks.transfer.training import Advice, Trained, Training
from fslr.advisor.v1 import policy_pb2

CASE = replace(CASES[0], seeds=(0, 1), octaves=(-1, -2, -3))


def sweep(best: float, lowest: float = 1.0, diverged: float = 9.0) -> Sweep:
    octaves = [-4.0, -3.0, -2.0, -1.75, -1.0, 0.0]
    return Sweep(
        losses={
            o: [math.inf if o >= diverged else lowest + s / 10 + (o - best) ** 2 for s in range(2)]
            for o in octaves
        },
        seconds={o: [3.0, 4.0] for o in octaves},
    )


BASE = base_record(CASE, sweep(-1.5))


def record(
    method: MethodName, best: float, case: Any = CASE, standard: float = -3.0
) -> dict[str, Any]:
    plain = method_record(case, "standard", sweep(standard), -2)
    return with_figures(method_record(case, method, sweep(best), -2), BASE, plain)


def test_a_record_has_fitted_figures_and_those_of_the_octave_grid() -> None:
    found = record("measured", -1.0)
    assert (found["axis"], found["method"]) == ("width", "measured")
    assert found["base_octave"] == pytest.approx(-1.5)
    assert found["shift"] == pytest.approx(0.5)
    assert found["regret"] == pytest.approx(0.25)
    assert found["verdict"] == "within"
    assert found["shift_interval"] == pytest.approx([0.5, 0.5])
    # Of two equal losses at octaves, the lower learning rate counts.
    assert found["octaves"] == {
        "base": -2, "shift": 1, "regret": pytest.approx(1.0), "loss": pytest.approx(2.05),
        "spread": {"regret": pytest.approx(0.0), "loss": pytest.approx(0.1 / 2**0.5)}, "seeds": 2,
    }  # fmt: skip
    assert found["at_edge"] == []
    assert found["seconds"] == {"sweep": 35.0, "run": 7.0}  # of whole octaves
    assert losses_of(found) == sweep(-1.0).losses
    json.dumps(found, allow_nan=False)


def test_the_figures_of_a_changed_sweep_replace_those_of_a_record() -> None:
    old, new = record("measured", -1.0), record("measured", -2.0)
    plain = method_record(CASE, "standard", sweep(-3.0), -2)
    assert with_figures({**old, "sweep": new["sweep"]}, BASE, plain) == new


def test_regrets_refer_to_the_best_loss_of_a_new_plain_sweep() -> None:
    other = record("measured", -1.0, case=replace(CASE, axis="depth"))
    old = {**record("measured", -1.0), "commit": "abc"}
    plain = method_record(CASE, "standard", sweep(-3.0, lowest=0.25), -2)
    found = referred_to([other, old], BASE, plain)
    assert found[0] == other
    assert found[1]["regret"] == pytest.approx(old["regret"] + 0.75)
    assert (found[1]["shift"], found[1]["commit"]) == (old["shift"], "abc")


def test_a_record_names_the_sweeps_with_an_optimum_at_an_edge() -> None:
    assert record("measured", 2.0)["at_edge"] == ["big"]
    assert record("measured", -1.0, standard=-7.0)["at_edge"] == ["standard"]


def test_a_diverged_training_is_null() -> None:
    new = method_record(CASE, "measured", sweep(-3.0, diverged=-1.0), -2)
    assert new["sweep"]["0.5"] == [None, None]
    assert losses_of(new)[-1.0] == [math.inf, math.inf]
    # The base's best octave, -1.5, is between one that did not diverge and one that did.
    lost = with_figures(new, BASE, method_record(CASE, "standard", sweep(-3.0), -2))
    assert (lost["regret"], lost["regret_interval"]) == (None, None)
    assert lost["shift"] == pytest.approx(-1.5)
    assert lost["verdict"] == "beyond"


def test_a_new_record_replaces_that_of_its_case_and_method() -> None:
    first, second = record("measured", -1.0), record("hybrid", -1.0)
    again = record("measured", -2.0)
    assert merged(merged([], first), second) == [first, second]
    assert merged([first, second], again) == [again, second]
    other = record("measured", -1.0, case=replace(CASE, optimizer="SGD"))
    assert merged([first, other, second], again) == [again, other, second]


def test_records_of_a_former_form_of_a_case_are_removed() -> None:
    old = [record("measured", -1.0), record("hybrid", -1.0)]
    new = record("standard", -1.0, case=replace(CASE, steps=7))
    assert merged(old, new) == [new]


def test_a_method_is_finished_if_there_is_a_record_with_the_same_sizes_and_seeds(
    tmp_path: Path,
) -> None:
    file = tmp_path / "transfer.json"
    assert load(file) == ([], [], {})
    content = document([BASE], [record("measured", -1.0)], {"commit": "abc"})
    save(file, content)
    assert json.loads(file.read_text("utf-8")) == json.loads(json.dumps(content))
    assert '"0.5": [1.0, 1.1]' in file.read_text("utf-8")  # a list of numbers is on one line
    bases, cases, source = load(file)
    assert source == {"commit": "abc"}
    assert bases == json.loads(json.dumps([BASE]))
    assert is_finished(CASE, "measured", cases)
    assert not is_finished(CASE, "hybrid", cases)
    for change in ({"seeds": (0, 1, 2)}, {"steps": 7}, {"big": CASE.base}, {"axis": "depth"}):
        assert not is_finished(replace(CASE, **change), "measured", cases)
    old = tmp_path / "old.json"
    old.write_text('{"cases": []}', "utf-8")
    with pytest.raises(ValueError, match=r"old.json has no records of methods; give a different"):
        load(old)


def test_the_summary_leaves_out_what_cannot_be_told_and_counts_divergence_as_a_miss() -> None:
    cases = [{"verdict": word, "regret": regret} for word, regret in (
        ("within", 0.1), ("within", 0.2), ("beyond", None), ("cannot tell", 0.4),
    )]  # fmt: skip
    assert summary(cases) == {
        "cases": 4, "told": 3, "within": 2, "within_one_octave": pytest.approx(2 / 3),
        "median_regret": pytest.approx(0.3),
    }  # fmt: skip
    lost = summary([{"verdict": "beyond", "regret": None}])
    assert (lost["within_one_octave"], lost["median_regret"]) == (0.0, None)
    assert summary([])["within_one_octave"] is None


def test_the_claim_is_made_on_the_cases_that_do_not_choose() -> None:
    chosen = replace(CASE, axis="depth", base=replace(CASE.base, depth=2))
    assert chosen.name in CHOOSING
    claimed = replace(chosen, optimizer="SGD")
    standard = [record("standard", -3.0, each) for each in (chosen, claimed)]
    ours = [record("measured", best, each) for best, each in ((0.0, chosen), (-1.5, claimed))]
    content = document([], [*standard, *ours], {})
    assert content["within_one_octave"] == 0.5
    assert content["claim"] == {"within_one_octave": 1.0, "median_regret": pytest.approx(0.0)}
    assert content["methods"]["measured"]["choosing"]["within"] == 0
    assert content["methods"]["standard"]["claiming"]["told"] == 1
    assert document([], [], {})["claim"]["within_one_octave"] is None


def test_the_table_covers_every_axis_model_and_optimizer_without_duplicates() -> None:
    assert {case.axis for case in CASES} == set(AXES)
    assert {case.model for case in (*CASES, LARGER)} == set(MODELS)
    assert {case.optimizer for case in CASES} == set(OPTIMIZERS)
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_third_of_the_cases_is_long_and_has_weight_decay() -> None:
    long = [case for case in CASES if case.steps >= 2000 and case.weight_decay == 0.1]
    assert 3 * len(long) >= len(CASES)
    few = {case.name for case in CASES if case not in long and len(case.seeds) < 5}
    assert few == {"width char_gpt_pre Adam", "width char_gpt_pre Muon"}  # decision 23 says why


def test_the_cases_that_choose_are_fewer_than_those_that_claim() -> None:
    names = {case.name for case in CASES}
    assert names > CHOOSING
    claiming = [case for case in CASES if case.name not in CHOOSING]
    assert len(claiming) > len(CHOOSING)
    # Each axis is claimed on a case that chose nothing.
    assert {case.axis for case in claiming} == set(AXES)


def test_base_and_big_model_of_each_case_differ() -> None:
    for case in CASES:
        assert (case.base, case.steps_of_base) != (case.big, case.steps)


def test_the_quick_form_has_one_case_per_axis_and_two_seeds() -> None:
    quick = chosen_cases(is_quick=True)
    assert {case.axis for case in quick} == set(AXES)
    assert len(quick) == len(AXES)
    assert {case.seeds for case in quick} == {(0, 1)}
    (longer,) = (case for case in quick if case.axis == "duration")
    assert longer.steps == pytest.approx(8 * longer.steps_of_base, rel=0.1)


def test_cases_are_filtered_by_axis_model_and_optimizer() -> None:
    assert {case.axis for case in chosen_cases("depth")} == {"depth"}
    [chosen] = chosen_cases("width", "res_mlp", "SGD", is_quick=True)
    assert (chosen.name, chosen.seeds) == ("width res_mlp SGD", (0, 1))
    assert chosen_cases("lora_rank", "res_mlp") == []


def test_each_case_is_in_one_part_that_make_can_measure() -> None:
    by_part = {part: chosen_cases(part=part) for part in PARTS}
    assert [len(cases) for cases in by_part.values()] == [23, 5, 2, 4, 1]
    assert {case.name for cases in by_part.values() for case in cases} == {c.name for c in CASES}
    makefile = (Path(__file__).parents[3] / "Makefile").read_text("utf-8")
    named = re.search(r"fit a night: PART=(.*)$", makefile, re.MULTILINE)
    assert named is not None
    assert re.split(", | or ", named[1]) == ["others", *PARTS, "larger"]
    hours = re.search(r"# Hours on 2 quiet cores: (.*?)\.", makefile, re.DOTALL)
    assert hours is not None
    assert re.findall(r"([a-z-]+) \d+", hours[1]) == ["others", *PARTS, "larger"]


def test_methods_say_nothing_of_optimizers_without_a_rule() -> None:
    by_name = {case.name: case for case in CASES}

    def known(name: str) -> set[str]:
        return {each for each in METHODS if method_of(each, by_name[name]) is not None}

    assert known("width char_gpt_pre Adam") == set(METHODS)
    assert known("width char_gpt_pre SGD") == set(METHODS) - {"completep"}
    assert known("width char_gpt_pre Muon") == set(METHODS) - {"mup", "depth_mup", "completep"}
    assert known("lora_rank lora_gpt AdamW") == known("width char_gpt_pre Muon")


def test_a_hybrid_without_rules_is_measured() -> None:
    for name in ("width char_gpt_pre Muon", "lora_rank lora_gpt AdamW"):
        case = next(each for each in CASES if each.name == name)
        assert equals("hybrid_standard", case) == ["measured", "hybrid"]
        method = method_of("hybrid_standard", case)
        assert method == replace(ADVISED, name="hybrid_standard")


def test_rules_have_factors_for_each_case_that_they_apply_to() -> None:
    for case in CASES:
        for name in METHODS:
            assert same_as(name, case) in {None, *METHODS}


def test_a_method_whose_factors_are_those_of_another_equals_it() -> None:
    small = Setting("res_mlp", width=16, depth=2)
    deep = replace(CASES[0], base=small, big=replace(small, depth=4))
    assert same_as("mup", deep) == "standard"
    assert same_as("depth_mup", deep) is None
    assert same_as("hybrid", replace(deep, big=small)) == "measured"
    assert same_as("hybrid", deep) is None
    assert same_as("measured", deep) is None
    wide = replace(deep, big=replace(small, width=32))
    assert same_as("mup", wide) is None
    assert same_as("depth_mup", wide) == "mup"
    assert same_as("completep", wide) is None  # it has a rule for epsilon
    louder = replace(deep, big=replace(small, init_scale=8.0))
    assert same_as("hybrid", louder) is None  # it starts with the base's initial weights
    assert equals("mup", wide) == ["depth_mup"]
    assert equals("depth_mup", replace(deep, big=small)) == ["standard", "mup", "completep"]
    assert equals("hybrid_standard", replace(deep, big=small)) == ["measured", "hybrid"]
    assert equals("hybrid_standard", deep) == ["hybrid"]
    assert equals("hybrid_standard", wide) == []
    assert equals("completep", wide) == []


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_the_two_hybrids_are_the_same_where_the_width_does_not_grow(optimizer: Any) -> None:
    base = Setting("res_mlp", width=16, depth=2)

    def layout(setting: Setting) -> Layout:
        return layout_of(build_task(setting).model, optimizer)

    def factors(recipe: str, setting: Setting) -> dict[str, list[float]]:
        found = applied(recipe, layout(setting), layout(base), optimizer).factors
        return {str(field): each.tolist() for field, each in found.items()}

    one, other = HYBRIDS.values()
    deep, wide = replace(base, depth=8), replace(base, width=64)
    assert factors(one, deep) == factors(other, deep)
    assert factors(one, wide) != factors(other, wide)


def test_finished_trainings_are_known_by_definition_profile_and_code(tmp_path: Path) -> None:
    store = FinishedTrainings(tmp_path / "trainings")
    small = Setting("res_mlp", width=16, depth=2)
    plain = Training(small, small, "Adam", 0.1, 10, 0, address="localhost:1")
    trained = Trained(math.inf, 2.0, [1.0, 2.0], content=b"\x00\xff", totals=((0, 1.5),))
    assert store.get(plain, {}) is None
    store.put(plain, trained, {})
    (file,) = (tmp_path / "trainings").iterdir()
    stored = json.loads(file.read_text("utf-8"))["training"]
    assert stored.keys() ^ asdict(plain).keys() == {
        *("format", "torch"),
        *("parametrization", "parametrisation"),  # a new key would make all results unknown
    }
    again = FinishedTrainings(tmp_path / "trainings")
    found = again.get(replace(plain, address="localhost:2"), {})
    assert found is not None
    assert (found.loss, found.content, found.totals) == (math.inf, b"\x00\xff", ((0, 1.5),))
    assert math.isnan(found.unevenness)
    assert again.get(replace(plain, seed=1), {}) is None
    advised = replace(plain, advice=ADVISED.advice, profile="profiles/a/versions/1")
    store.put(advised, Trained(1.0, 2.0, []), {advised.profile: "digest"})
    other = replace(advised, profile="profiles/b/versions/7")
    assert again.get(other, {other.profile: "digest"}) is not None
    assert again.get(other, {other.profile: "different"}) is None
    (file, _) = sorted((tmp_path / "trainings").glob("*.json"), key=lambda f: f.stat().st_mtime)
    file.write_text(file.read_text("utf-8").replace('"seed": 0', '"seed": 5'), "utf-8")
    with pytest.raises(ValueError, match="has the result of a different training; remove it"):
        again.get(plain, {})


def test_a_changed_recipe_makes_only_the_trainings_that_follow_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FinishedTrainings(tmp_path)
    small = Setting("res_mlp", width=16, depth=2)
    plain = Training(small, small, "Adam", 0.1, 10, 0, profile="x")
    advised = replace(plain, advice=ADVISED.advice)
    followed = replace(plain, advice=Advice(recipe="depth-mup"))
    by_policy = replace(plain, advice=Advice(policy_pb2.Policy(recipe="depth-mup")))
    for training in (plain, advised, followed, by_policy):
        store.put(training, Trained(1.0, 2.0, []), {})

    def known() -> list[bool]:
        return [store.get(t, {}) is not None for t in (plain, advised, followed, by_policy)]

    shipped = shipped_recipe("depth-mup")
    reworded = replace(shipped, source="elsewhere")
    monkeypatch.setattr(code_version, "shipped_recipe", lambda _: reworded)
    assert known() == [True] * 4
    with monkeypatch.context() as patch:
        patch.setattr(
            code_version, "shipped_recipe", lambda _: replace(shipped, rows=shipped.rows[1:])
        )
        assert known() == [True, True, False, False]
    monkeypatch.setattr(code_version, "_RECIPES", ("recipes/shipped",))
    assert known() == [True, True, False, False]


def _full_file(tmp_path: Path) -> Path:
    file = tmp_path / "transfer.json"
    records: list[dict[str, Any]] = []
    bases: list[dict[str, Any]] = []
    found = record("measured", -1.0)
    for case in CASES:
        known = [name for name in METHODS if method_of(name, case) is not None]
        records += [{**found, "method": name, **identity(case)} for name in known]
        bases.append({**BASE, **identity(case)})
    save(file, document(bases, records, {"commit": "abc", "processes": 2}))
    return file


def test_a_file_with_all_records_is_printed_without_training(tmp_path: Path) -> None:
    file = _full_file(tmp_path)
    before = file.read_text("utf-8")
    arguments = ["transfer", "--axis", "width", "--method", "hybrid", "--out", str(file)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {case["axis"] for case in printed["cases"]} == {"width"}
    assert {case["method"] for case in printed["cases"]} == {"hybrid"}
    assert (printed["figures_of"], printed["within_one_octave"]) == ("hybrid", 1.0)
    assert printed["median_regret"] == printed["cases"][0]["regret"]
    assert json.loads(before)["figures_of"] == DEFAULT
    assert {"shift_interval", "regret_interval", "verdict"} <= set(printed["cases"][0])
    assert file.read_text("utf-8") == before
    text = CliRunner().invoke(app, arguments).stdout
    assert "hybrid: within one octave in 13 of 13 cases that can be told (100%" in " ".join(
        text.split()
    )


def test_a_method_that_equals_a_measured_one_takes_its_record_and_the_files_note_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "transfer.json"
    case = next(each for each in CASES if each.name == "batch_size char_gpt_pre Adam")
    old = [{**record(name, -1.0), **identity(case)} for name in ("standard", "measured")]
    old[1]["commit"] = "abc"
    source = {"commit": "abc", "processes": 2, "note": "on two machines"}
    save(file, document([{**BASE, **identity(case)}], old, source))
    monkeypatch.setattr(command, "bench_with_progress", lambda *_args, **_options: nullcontext())
    arguments = ["transfer", "--axis", "batch_size", "--model", "char_gpt_pre"]
    chosen = ["--optimizer", "Adam", "--method", "hybrid_standard", "--out", str(file)]
    result = CliRunner().invoke(app, [*arguments, *chosen])
    assert result.exit_code == 0, result.output
    _, records, source = load(file)
    assert source["note"] == "on two machines"
    assert source["commit"] != "abc"
    assert [each["method"] for each in records] == ["standard", "measured", "hybrid_standard"]
    assert records[2] == {**records[1], "method": "hybrid_standard"}


def test_quick_cases_do_not_replace_full_ones(tmp_path: Path) -> None:
    file = _full_file(tmp_path)
    before = file.read_text("utf-8")
    refused = CliRunner().invoke(app, ["transfer", "--quick", "--out", str(file)])
    assert refused.exit_code == 2
    assert "which --quick would replace" in " ".join(refused.output.replace("│", " ").split())
    assert file.read_text("utf-8") == before


def test_an_unknown_case_or_method_is_rejected_with_the_known_ones() -> None:
    refused = CliRunner().invoke(app, ["transfer", "--axis", "lora_rank", "--model", "res_mlp"])
    assert refused.exit_code == 2
    assert "lora_rank lora_gpt AdamW" in " ".join(refused.output.replace("│", " ").split())
    assert CliRunner().invoke(app, ["transfer", "--axis", "height"]).exit_code == 2
    both = CliRunner().invoke(app, ["transfer", "--larger", "--axis", "width"])
    assert both.exit_code == 2
    assert "--larger is one case; leave out" in " ".join(both.output.replace("│", " ").split())
    unknown = CliRunner().invoke(app, ["transfer", "--method", "advised"])
    assert unknown.exit_code == 2
    assert "'advised' is not one of standard" in " ".join(unknown.output.replace("│", " ").split())
