"""Registry commands: diff, aliases, import and export, completion; and invalid input."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from advisor.cli.profile_diff import sparkline
from advisor.local.server import LocalServer
from advisor.registry.templates import load_template, template_names
from fslr import AdvisorClient, load_profile, save_profile
from fslr.advisor.v1 import profile_pb2
from tests.building import content_message
from tests.commands import Cli


def register(client: AdvisorClient, project: str, *contents: profile_pb2.ProfileContent) -> None:
    for content in contents:
        client.register_profile("gpt", content, project=project)


def test_diff_shows_every_difference_between_two_versions(
    cli: Cli, client: AdvisorClient, project: str
) -> None:
    """Every difference is printed, and its old and new value never look the same."""
    from fslr.advisor.v1 import policy_pb2

    client.set_policy("team", policy_pb2.Policy(), project=project)
    base = content_message(labels={"a": "1"})
    changed: dict[str, profile_pb2.ProfileContent] = {}
    for name in (
        *("policy_name", "group_aliases", "base_learning_rate", "labels a", "docs", "total_steps"),
        *("provenance commit", "role_templates", "points relative errors", "points learning rate"),
        *("group head.weight", "policy slew limit", "frozen names", "order of groups"),
        "frozen parameter counts",
    ):
        changed[name] = profile_pb2.ProfileContent.FromString(base.SerializeToString())
    changed["policy_name"].policy_name = f"projects/{project}/policies/team"
    changed["group_aliases"].group_aliases.add(pattern="a", target="head.weight")
    changed["base_learning_rate"].base_learning_rate = 0.010001
    changed["labels a"].labels["a"] = "2"
    changed["docs"].docs = "new"
    changed["total_steps"].total_steps = 1000
    changed["provenance commit"].provenance.commit = "other"
    changed["role_templates"].layout.role_templates.append("x*")
    for point in changed["points relative errors"].points:
        point.relative_errors.extend([0.1] * 4)
    for point in changed["points learning rate"].points:
        point.learning_rate = 0.01
    changed["group head.weight"].layout.groups[3].parameter_count = 7
    changed["policy slew limit"].policy.slew_limit = 2.0
    for name in ("frozen names", "frozen parameter counts"):
        changed[name].layout.frozen_names[:] = ["frozen.weight"]
    changed["frozen parameter counts"].layout.frozen_parameter_counts.append(7)
    groups = changed["order of groups"].layout.groups
    for point in changed["order of groups"].points:
        point.unit_rates[:] = [point.unit_rates[i] for i in (1, 0, 2, 3)]
    swapped = [groups[1], groups[0], *groups[2:]]
    changed["order of groups"].layout.ClearField("groups")
    changed["order of groups"].layout.groups.extend(swapped)
    register(client, project, base, *changed.values())
    for version, name in enumerate(changed, start=2):
        words = name.replace("_", " ") if not name.startswith("group h") else name
        found = cli.json("profile", "diff", "gpt@1", f"gpt@{version}")
        assert words in found["changed"], (words, found)
        assert not found["same"]
        output = cli.run("profile", "diff", "gpt@1", f"gpt@{version}").stdout
        (row,) = (line for line in output.splitlines() if line.strip().startswith(words))
        old, new = re.split(r"\s{2,}", row.strip().removeprefix(words).strip())
        assert old != new
    assert cli.json("profile", "diff", "gpt@1", "gpt@1")["same"]


def test_ratios_over_training_are_numbers_in_json_and_bars_in_the_table(
    cli: Cli, client: AdvisorClient, project: str
) -> None:
    steps = range(0, 480, 10)
    old, new = content_message(steps=steps), content_message(steps=steps)
    for i, point in enumerate(new.points):
        point.unit_rates[0] = 2 ** (2 * i / 47 - 1)  # from half to twice the old rate
        point.unit_rates[1] = 0
    old.points[0].unit_rates[2] = 0
    register(client, project, old, new)
    ratios = cli.json("profile", "diff", "gpt@1", "gpt@2")["ratios"]
    assert ratios["embed.weight"][0] == pytest.approx(0.5)
    assert ratios["embed.weight"][-1] == pytest.approx(2.0)
    assert set(ratios["blocks.0.up.weight"]) == {0.0}
    assert ratios["blocks.1.up.weight"][:2] == [None, 1.0]
    output = cli.run("profile", "diff", "gpt@1", "gpt@2").stdout
    bars = {line.split()[0]: line.split()[-1] for line in output.splitlines() if ".weight" in line}
    assert bars["embed.weight"] == "".join(sorted(bars["embed.weight"]))
    assert set(bars["embed.weight"]) == set("▁▂▃▄▅▆▇█")
    assert set(bars["blocks.0.up.weight"]) == {"▁"}
    assert set(bars["head.weight"]) == {"▅"}


def test_a_sparkline_is_monotonic_and_blank_for_unknown_ratios() -> None:
    heights = [sparkline([2.0 ** (x / 10)]) for x in range(-12, 13)]
    assert heights == sorted(heights)
    assert (sparkline([None]), sparkline([0.0]), sparkline([1e30])) == (" ", "▁", "█")
    assert len(sparkline([1.0] * 1000)) <= 24


def test_templates_are_listed_and_registered(cli: Cli) -> None:
    names = template_names()
    assert "transformer-pre-norm-adamw" in names
    assert all(name in cli.run("profile", "templates").stdout for name in names)
    assert "When to use it" not in cli.run("profile", "templates").stdout
    assert "When to use it" in cli.run("profile", "templates", names[0]).stdout
    registered = cli.run("profile", "templates", "--register").stdout
    assert registered.count("registered projects/") == len(names)
    again = cli.run("profile", "templates", names[0], "--register").stdout
    assert "exists already, unchanged" in again
    found = cli.json("profile", "list", "--filter", "labels.kind=template")
    assert [profile["name"].split("/")[-1] for profile in found] == [f"{n}@1" for n in names]
    assert (
        "there is no template 'x'; the templates are "
        in cli.run("profile", "templates", "x", ok=False).output
    )
    for name in names:
        content = load_template(name)
        assert content.docs.startswith("# ")
        assert "**When to use it.**" in content.docs
        assert content.provenance.recordings == 3
        assert all(point.coherences and point.spreads for point in content.points)
    assert "When to use it" in cli.run("profile", "show", "transformer-pre-norm-adamw").stdout


def test_a_hugging_face_gpt2_maps_onto_the_transformer_template(cli: Cli, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=8, n_embd=32, n_head=2, vocab_size=50, n_positions=16)
    config.tie_word_embeddings = False
    model = GPT2LMHeadModel(config)
    names = [name for name, _ in model.named_parameters()]
    layout = tmp_path / "gpt2.yaml"
    layout.write_text("\n".join(f"- {name}" for name in names))
    cli.run("profile", "templates", "transformer-pre-norm-adamw", "--register")
    found = cli.json("profile", "check", "transformer-pre-norm-adamw", str(layout))
    assert len(found["mappings"]) == len(names)
    sources = {mapping["group"]: mapping["sources"] for mapping in found["mappings"]}
    assert sources["transformer.h.7.attn.c_attn.weight"] == ["blocks.3.attention.qkv.weight"]
    assert sources["lm_head.weight"] == ["head.weight"]


def test_exported_files_are_registered_as_the_same_version(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    content = content_message(labels={"team": "yes", "release": "2024", "x": "1e5", "n": "null"})
    content.docs = "# Title\n\nText with: colons, 'quotes' and # marks.\n\n- a list\n"
    content.provenance.commit = "0123456"
    content.points[0].relative_errors.extend([0.0, 0.1, 0.2, 0.3])
    register(client, project, content)
    for name in ("a.yaml", "a.json", "b.YAML"):
        cli.run("profile", "export", "gpt", "-o", str(tmp_path / name))
        assert not client.register_profile(
            "gpt", load_profile(tmp_path / name), project=project
        ).created
    text = (tmp_path / "a.yaml").read_text()
    assert "docs: |\n  # Title\n\n  Text with: colons" in text
    assert "commit: '0123456'" in text
    assert "- step: 0\n  unit_rates: [1.0, 2.0, 3.0, 4.0]" in text
    assert text.index("provenance:") < text.index("layout:") < text.index("points:")


def test_all_files_are_checked_before_the_first_is_registered(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    good, bad = content_message(), content_message()
    bad.points[1].unit_rates[0] = -1.0
    for name, content in (("good", good), ("bad", bad), ("Not_A_Name", good)):
        save_profile(content, tmp_path / f"{name}.yaml")
    for name, message in (
        ("bad", "bad.yaml: points[1].unit_rates[0]: -1.0"),
        ("Not_A_Name", "Not_A_Name.yaml: name: profile 'Not_A_Name' is not an identifier"),
    ):
        files = [str(tmp_path / "good.yaml"), str(tmp_path / f"{name}.yaml")]
        assert message in cli.run("profile", "import", *files, ok=False).output
    assert list(client.list_profiles(project=project)) == []
    assert cli.json("profile", "import", str(tmp_path / "good.yaml"))[0]["created"]


def test_expected_version_zero_creates_an_alias_only_if_it_does_not_exist(
    cli: Cli, client: AdvisorClient, project: str
) -> None:
    register(client, project, content_message())
    cli.run("profile", "alias", "gpt@1", "prod", "--expected-version", "0")
    taken = cli.run("profile", "alias", "gpt@1", "prod", "--expected-version", "0", ok=False)
    assert "names version 1, not none as expected" in taken.output
    assert cli.json("profile", "alias", "gpt", "prod", "--delete")["deleted"]
    cli.run("profile", "alias", "gpt@1", "prod", "--expected-version", "0")
    missing = cli.run("profile", "alias", "gpt", "old", "--delete", ok=False)
    assert "no version or alias 'old'; existing ones: 1, prod" in missing.output
    assert "no version or alias '7'" in cli.run("profile", "delete", "gpt@7", ok=False).output


def test_untrusted_text_cannot_control_the_terminal(
    cli: Cli, server: LocalServer, project: str, tmp_path: Path
) -> None:
    evil = content_message()
    evil.provenance.model = "\x1b[31mevil\x1b[0m"
    save_profile(evil, tmp_path / "evil.json")
    refused = cli.run("profile", "register", "gpt", str(tmp_path / "evil.json"), ok=False)
    assert "content.provenance.model: " in refused.output
    assert "holds the control character" in refused.output
    assert "\x1b[31m" not in refused.output
    plain = content_message()
    plain.provenance.model, plain.docs = "[bold]x[/] :100:", "a :warning: [red]b[/red]"
    with AdvisorClient(server.address, actor="[red]mallory :smile:") as client:
        client.register_profile("gpt", plain, project=project)
    assert "[bold]x[/] :100:" in cli.run("profile", "show", "gpt").stdout
    assert ":warning: [red]b[/red]" in cli.run("profile", "show", "gpt").stdout
    assert "[red]mallory :smile:" in cli.run("audit").stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slew_limit: 0b_", "not a valid policy"),
        ("on: 3", 'no field named "on" at "Policy"; the top-level fields are depth_rule,'),
        ("1: 3", 'no field named "1"'),
        ("[a]: 3", "line 1 has a list or a mapping as a key"),
        ("slew_limit: 2\nslew_limit: 3", "'slew_limit' is given twice, the second time in line 2"),
        ("[" * 3000, "is not YAML"),
        ("- a", "the file contains no rules"),
        ("", "the file contains no rules"),
        ("slew_limit: " + "9" * 5000, "not a valid policy"),
        ("slew_limit: 2024-01-01", "not a valid policy"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_an_invalid_policy_file_is_refused_with_the_reason(
    cli: Cli, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    result = cli.run("policy", "set", "team", str(path), ok=False)
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert len(result.output) < 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "gpt", "x.yaml", "--step", "9" * 20], "Input should be less than or equal to"),
        (
            ["policy", "set", "t", "--reset", "--expected-version", "9" * 20],
            "Input should be less than or equal to",
        ),
        (["audit", "-n", "9" * 20], "Input should be less than or equal to"),
        (["profile", "show", "\udcff"], "is not text; use UTF-8"),
        (["policy", "try", "t" * 300], "is not an identifier"),
        (["policy", "try", "careful.yaml"], "the file careful.yaml cannot be read"),
        (["profile", "list", "--filter", "labels.a=x"], "no profile in project test-"),
        (["profile", "check", "gpt", "/"], "the file / cannot be read"),
        (
            ["profile", "merge", "missing.yaml", "-o", "x.yaml"],
            "the file missing.yaml cannot be read: No such file or directory",
        ),
        (["profile", "export", "gpt@"], "alias '' is not an identifier"),
    ],
)
def test_invalid_arguments_are_refused_with_the_reason(
    cli: Cli, arguments: list[str], message: str
) -> None:
    ok = arguments[1] == "list"
    result = cli.run(*arguments, ok=ok, env={"LOGNAME": "\udcff"})
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_the_shell_completes_names(cli: Cli, client: AdvisorClient, project: str) -> None:
    for name in ("char-gpt", "char-mlp", "vision"):
        client.register_profile(name, content_message(), project=project)
    client.set_alias("char-gpt@1", "prod", project=project)

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        result = cli.run(env={
            "_ADVISOR_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }, ok=True)  # fmt: skip
        return result.stdout.split()

    assert completed("advisor profile show char") == ["char-gpt", "char-mlp"]
    assert completed("advisor profile show char-gpt@") == ["char-gpt@prod", "char-gpt@1"]
    assert completed("advisor profile show nosuch@") == []
    assert completed("advisor profile sho") == ["show"]
    assert completed(f"advisor profile show -p {project}-other char") == []
    assert completed("advisor profile show -a 127.0.0.1:9 char") == []


def test_every_command_has_a_help_page(cli: Cli) -> None:
    import typer

    from advisor.cli import app

    def walk(command: Any, path: tuple[str, ...]) -> itertools.chain[tuple[str, ...]]:
        inner = getattr(command, "commands", {})
        return itertools.chain(
            [path], *(walk(child, (*path, name)) for name, child in inner.items())
        )

    paths = list(walk(typer.main.get_command(app), ()))
    assert len(paths) > 25
    for path in paths:
        assert "Usage: " in cli.run(*path, "--help").stdout
