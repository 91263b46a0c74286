"""``advisor recipe`` on files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from advisor.cli import app
from advisor.policy import Layout
from advisor.recipes import shipped_recipe, shipped_recipe_names
from advisor.recipes.words import powers_text, selection_text
from advisor.wire import layout_to_proto
from fslr import save_layout, save_profile
from fslr.advisor.v1 import profile_pb2
from tests.unit.recipes.layouts import applied, transformer


def recipe(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["recipe", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return files: a base, a larger run, that run initialized, names only, and a name twice."""
    base, run = transformer(64, 2), transformer(256, 6)
    wanted = applied(shipped_recipe("completep"), run, base).initial_rms.tolist()
    layouts = {
        "base": base,
        "run": run,
        "initialized": run.with_initial_rms(wanted),
        "names": Layout.of_names([group.name for group in run.groups]),
    }
    folder = tmp_path_factory.mktemp("layouts")
    paths = {name: folder / f"{name}.json" for name in layouts}
    for name, layout in layouts.items():
        save_layout(layout_to_proto(layout), paths[name])
    paths["twice"] = folder / "twice.json"
    paths["twice"].write_text('["a.weight", "a.weight"]', "utf-8")
    return {name: str(path) for name, path in paths.items()}


def test_list_names_all_shipped_recipes() -> None:
    assert all(name in recipe("list").output for name in shipped_recipe_names())
    listed = json.loads(recipe("list", "--json").stdout)
    assert [row["name"] for row in listed] == list(shipped_recipe_names())


def test_show_prints_source_table_and_conditions() -> None:
    shown = recipe("show", "completep").output
    assert "arXiv 2505.01618" in shown
    assert "fan_in^-0.5" in shown
    assert "- Blocks are residual" in shown
    assert json.loads(recipe("show", "completep", "--json").stdout)["name"] == "completep"


@pytest.mark.parametrize("name", ["", *shipped_recipe_names()])
def test_lists_and_recipes_fit_80_columns_and_cut_no_word(name: str) -> None:
    printed = recipe(*(("show", name) if name else ("list",))).output
    assert max(map(len, printed.splitlines())) <= 80
    words = printed.split()
    for known in [shipped_recipe(name)] if name else map(shipped_recipe, shipped_recipe_names()):
        texts = [known.name, known.description, ", ".join(known.optimizers)]
        if name:
            powers = [powers_text(found) for row in known.rows for found in row.powers.values()]
            texts += [known.source, *known.conditions, *powers, *map(selection_text, known.rows)]
        missing = {word for text in texts for word in text.split()} - {*words}
        assert missing <= {known.name}  # "completep:" begins what is shown


def test_a_table_that_does_not_fit_has_a_line_for_each_setting(tmp_path: Path) -> None:
    ratios = ["fan_in", "fan_out", "depth", "experts", "rank", "head_size", "batch", "tokens"]
    fields = ["learning_rate", "weight_decay", "epsilon", "one_minus_beta1", "one_minus_beta2"]
    rows = [
        {"kinds": [kind], "initial_scale": dict.fromkeys(ratios, -0.125)}
        | {field: {"head_size": -0.3125 + i} for i, field in enumerate(fields)}
        for kind, i in (("hidden", 0), ("vector", 1))
    ]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"name": "own", "groups": rows}), "utf-8")
    lines = recipe("show", str(path)).output.splitlines()
    assert lines[:8] == [
        "own",
        "optimizers: any",
        "groups: hidden",
        "  lr       head_size^-0.3125",
        "  decay    head_size^0.6875",
        "  epsilon  head_size^1.6875",
        "  1-beta1  head_size^2.6875",
        "  1-beta2  head_size^3.6875",
    ]
    assert max(map(len, lines)) <= 80
    assert {f"{ratio}^-0.125" for ratio in ratios} <= {*" ".join(lines).split()}


def test_a_shown_file_can_be_applied(tmp_path: Path, files: dict[str, str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(recipe("show", "completep", "--yaml").stdout, "utf-8")
    arguments = (files["run"], "--base", files["base"], "--json")
    own = json.loads(recipe("apply", str(path), *arguments).stdout)
    assert own == json.loads(recipe("apply", "completep", *arguments).stdout)
    again = tmp_path / "again.yaml"
    again.write_text(recipe("show", str(path), "--yaml").stdout, "utf-8")
    assert own == json.loads(recipe("apply", str(again), *arguments).stdout)


def test_apply_prints_a_row_for_each_role(files: dict[str, str]) -> None:
    printed = recipe("apply", "completep", files["run"], "--base", files["base"]).output
    rows = [line.split() for line in printed.splitlines() if line.startswith((" blocks", " head"))]
    table = {row[0]: row[1:] for row in rows}
    assert table["blocks.*.mlp.fc2.weight"] == ["hidden*", "6", "0.08333", "12", "0.25", "0.1667"]
    assert table["head.weight"] == ["readout", "1", "0.25", "4", "4", "0.25"]
    assert len([line for line in printed.splitlines() if "blocks." in line]) == 8


def test_apply_prints_a_row_for_each_group_if_asked(files: dict[str, str]) -> None:
    printed = recipe("apply", "completep", files["run"], "-b", files["base"], "--groups").output
    row = next(line.split() for line in printed.splitlines() if " blocks.5.mlp.fc2.weight" in line)
    assert row[1:] == ["hidden*", "0.08333", "12", "0.25", "0.1667", "0.08333"]


def test_factors_that_all_groups_share_are_printed_once(files: dict[str, str]) -> None:
    arguments = (files["run"], "--base", files["base"], "--batch", "4")
    printed = recipe("apply", "completed-p", *arguments).output
    assert "all groups: 1-beta1 4, 1-beta2 4" in printed
    shown = recipe("show", "completed-p").output
    assert "all groups: 1-beta1 batch tokens^-1, 1-beta2 batch tokens^-1" in shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "batch and tokens count as unchanged"),
        (["--batch", "2"], "tokens counts as unchanged"),
        (["--batch", "2", "--tokens", "1"], ""),
    ],
)
def test_ratios_that_are_not_given_are_named(
    files: dict[str, str], given: list[str], told: str
) -> None:
    printed = recipe("apply", "completed-p", files["run"], "-b", files["base"], *given).output
    assert ("unchanged" in printed) == bool(told)
    assert told in printed


def test_given_ratios_and_the_optimizer_count(files: dict[str, str]) -> None:
    def first(*arguments: str, status: int = 0) -> Any:
        result = recipe(
            "apply", "completed-p", files["base"], "--base", files["base"], "--json", *arguments,
            status=status,
        )  # fmt: skip
        return json.loads(result.stdout)["groups"][0]

    assert first("--batch", "4")["factors"]["learning_rate"] == 2
    assert first("--tokens", "4", "--batch", "1")["factors"]["one_minus_beta2"] == 0.25
    without = first("--optimizer", "SGD", status=1)
    assert without["no_rule"] == "the recipe does not hold for the group's optimizer"
    assert without["factors"] == {}


def test_check_of_a_run_that_fits(files: dict[str, str]) -> None:
    arguments = ("check", "completep", files["initialized"], "--base", files["base"])
    printed = recipe(*arguments, "--initialized").output
    assert "completep has a rule for 51 of 51 groups" in printed
    assert "problem" not in printed
    assert json.loads(recipe(*arguments, "--json").stdout)["fits"]


def test_other_initial_values_are_a_problem_once_the_run_is_initialized(
    files: dict[str, str],
) -> None:
    arguments = ("check", "completep", files["run"], "--base", files["base"])
    assert "warning: the recipe wants 0.1667 to 0.5 times" in recipe(*arguments).output
    printed = recipe(*arguments, "--initialized", status=1).output
    assert "problem: the recipe wants 0.1667 to 0.5 times" in printed
    assert "error: completep does not fit this run: 1 problem" in printed


def test_check_of_growth_without_a_rule_fails(files: dict[str, str]) -> None:
    printed = recipe("check", "mup-adam", files["run"], "--base", files["base"], status=1).output
    assert "problem: depth grows by 3, and mup-adam has no rule for it" in printed


def test_apply_warns_of_a_smaller_run(files: dict[str, str]) -> None:
    result = recipe("apply", "completep", files["base"], "--base", files["run"])
    assert "warning: the run is smaller than its base" in result.stderr


def test_a_profile_as_base_gives_aliases_and_the_optimizer(
    files: dict[str, str], tmp_path: Path
) -> None:
    base = transformer(64, 2)
    renamed = Layout.of(
        replace(g, name=g.name.replace("blocks", "layer"), role="") for g in base.groups
    )
    content = profile_pb2.ProfileContent(
        layout=layout_to_proto(renamed),
        group_aliases=[profile_pb2.GroupAlias(pattern="blocks.*.**", target="layer.*.**")],
        points=[profile_pb2.ProfilePoint(step=0)],
        provenance=profile_pb2.Provenance(optimizer="SGD"),
    )
    path = tmp_path / "profile.json"
    save_profile(content, path)
    arguments = (files["run"], "--base", str(path))
    printed = recipe("check", "mup-sgd", *arguments, status=1).output  # of depth alone
    assert "mup-sgd has a rule for 51 of 51 groups" in printed
    assert "for the group's optimizer" in recipe("apply", "mup-adam", *arguments, status=1).output
    assert "51 groups" in recipe("apply", "mup-adam", *arguments, "--optimizer", "Adam").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("apply", "complete", "{run}", "--base", "{base}"), "did you mean completep"),
        (("apply", "completep", "{twice}", "--base", "{base}"), "'a.weight' is also the name of"),
        (("show", "ours"), "`advisor recipe get` writes a stored recipe to a file"),
        (("apply", "completep", "{names}", "--base", "{names}"), "does not give the group's kind"),
        (("apply", "completep", "{run}", "--base", "none.yaml"), "the file none.yaml cannot be"),
        (("check", "completed-p", "{run}", "-b", "{base}", "--batch", "0"), "ratios.batch: 0.0 is"),
        (("check", "completep", "{names}", "--base", "{base}"), "does not fit this run"),
        (("show", "{base}"), "is not a field; use one of kinds, residual_output"),
    ],
)
def test_what_is_not_valid_ends_with_an_error(
    arguments: tuple[str, ...], message: str, files: dict[str, str]
) -> None:
    output = recipe(*(argument.format(**files) for argument in arguments), status=1).output
    assert "error: " in output
    assert message in output.replace("\n", " ")
