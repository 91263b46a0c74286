"""``advisor export`` against a service: runs, profiles with layouts, and invalid input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from advisor.cli.layout_files import read_request
from fslr import AdvisorClient, RunSession, save_layout, save_profile
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2
from fslr.resource_names import run_name
from tests.building import NAMES, content_message, describe_tensors, layout_message, opening_message
from tests.commands import Cli
from tests.unit.export import trainers
from tests.waiting import eventually

DECAY_KEPT = policy_pb2.Policy(weight_decay=policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT)
LEARNING_RATE = ("--learning-rate", "0.01", "--weight-decay", "0.1")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Return the file of a layout that is four times as wide as the profile ``shaped``."""
    found = layout_message()
    describe_tensors(found, width=192)
    found.groups[0].kind = layout_pb2.GROUP_KIND_EMBEDDING
    path = tmp_path / "layout.yaml"
    save_layout(found, path)
    return path


def register(client: AdvisorClient, project: str, policy: policy_pb2.Policy | None = None) -> None:
    content = content_message(policy=policy)
    describe_tensors(content.layout, width=48)
    content.layout.groups[0].kind = layout_pb2.GROUP_KIND_EMBEDDING
    client.register_profile("shaped", content, project=project)


def train(
    client: AdvisorClient, project: str, name: str, *, total_steps: int, is_closed: bool = True
) -> RunSession:
    """Let a run send three measurements: the rates of the last group rise from a half to two."""
    register(client, project)
    opening = opening_message(
        f"projects/{project}/profiles/shaped",
        run=run_name(name, project),
        total_steps=total_steps,
    )
    opening.base_learning_rate = 0.02
    opening.optimizer = "Adam"
    opening.policy.averaging_window = 0
    opening.policy.multiplier_values_per_octave = 0
    opening.policy.weigh_by_confidence = False
    session = client.open_run(opening)
    for step, factor in ((0, 0.5), (50, 0.5), (75, 2.0)):
        rates = [1.0, 2.0, 3.0, 4.0 * factor]
        session.recommend(
            pb.Measurement(step=step, unit_rates=rates, interval_steps=1 if step else 0)
        )
    if is_closed:
        session.close()
    eventually(lambda: len(list(client.get_run_history(name, project=project))) == 3)
    return session


def test_a_runs_averaged_and_last_multipliers_are_exported(
    cli: Cli, client: AdvisorClient, project: str
) -> None:
    train(client, project, "big", total_steps=100)
    averaged = cli.run("export", "big", "--to", "torchtitan", "--optimizer", "AdamW")
    found = trainers.torchtitan(averaged.stdout, NAMES)
    assert found["embed.weight"]["lr"] == 0.02  # the run's base learning rate
    # Over the last half, from step 50 to 100: 25 steps with 2, then 25 with 1/2.
    assert found["head.weight"]["lr"] == pytest.approx(0.02)
    header = " ".join(averaged.stdout.split())
    assert "geometric means of the multipliers over steps 50 to 100, 2 answers" in header
    assert "rounded to 8 values per octave" in averaged.stdout
    last = cli.run("export", "big", "--to", "nemo-automodel", "--average", "0")
    assert trainers.nemo_automodel(last.stdout, NAMES)["head.weight"] == (0.5, 1.0)
    assert "the last multipliers, answered at step 75" in last.stdout


def test_blocks_of_a_role_may_share_a_multiplier(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    register(client, project)
    request = {
        "opening": {"layout": {"groups": [{"name": name} for name in NAMES]}},
        "measurement": {"unit_rates": [1, 1, 6, 4]},  # of the blocks 2 and 3 are expected
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    command = ("export", "shaped", "--layout", str(path), "--to", "nemo-automodel")
    own = trainers.nemo_automodel(cli.run(*command).stdout, NAMES)
    assert [own[name][0] for name in NAMES[1:3]] == [2.0, 0.5]
    shared = cli.run(*command, "--per-role")
    assert trainers.nemo_automodel(shared.stdout, NAMES) == dict.fromkeys(NAMES, (1.0, 1.0))
    assert "differs from their own by at most a factor of 2" in shared.stdout
    exact = cli.run(*command, "--values-per-octave", "0")
    assert "rounded" not in exact.stdout


def test_a_run_that_lacks_planned_steps_is_exported_with_a_warning(
    cli: Cli, client: AdvisorClient, project: str
) -> None:
    session = train(client, project, "young", total_steps=1000, is_closed=False)
    shown = cli.run("export", "young", "--to", "csv")
    assert "warning: The run has not finished (training)" in shown.stderr
    assert shown.stdout.startswith("name,role,")
    session.close()
    eventually(lambda: client.get_run("young", project=project).HasField("end_time"))
    ended = cli.run("export", "young", "--to", "csv")
    assert "warning: The run ended before its planned 1000 steps" in ended.stderr
    train(client, project, "unplanned", total_steps=0)
    eventually(lambda: client.get_run("unplanned", project=project).HasField("end_time"))
    assert "warning" not in cli.run("export", "unplanned", "--to", "csv").stderr


def test_a_profile_and_a_layout_give_priors(
    cli: Cli, client: AdvisorClient, project: str, layout: Path, tmp_path: Path
) -> None:
    register(client, project)
    output = tmp_path / "groups.json"
    shown = cli.run(
        *("export", "shaped", "--layout", str(layout), "--to", "pytorch", "-o", str(output)),
        *("--learning-rate", "0.01", "--weight-decay", "0.1"),
    )
    assert f"wrote {output}" in shown.stdout
    groups = json.loads(output.read_text())["groups"]
    assert {name: group["options"] for group in groups for name in group["names"]} == {
        "embed.weight": {"lr": 0.01, "weight_decay": 0.1},
        "blocks.0.up.weight": {"lr": 0.0025, "weight_decay": 0.1},
        "blocks.1.up.weight": {"lr": 0.0025, "weight_decay": 0.1},
        "head.weight": {"lr": 0.0025, "weight_decay": 0.1},
    }
    assert not list(client.list_runs(project=project))  # an export is no run


def test_a_profiles_file_needs_no_service(
    client: AdvisorClient, project: str, layout: Path, tmp_path: Path
) -> None:
    register(client, project)
    profile = tmp_path / "profile.yaml"
    save_profile(client.get_profile("shaped", project=project).profile.content, profile)
    away = Cli("127.0.0.1:1", project)
    shown = away.run("export", str(profile), "--layout", str(layout), "--to", "nemo-automodel")
    found = trainers.nemo_automodel(shown.stdout, NAMES)
    assert [found[name][0] for name in NAMES] == [1.0, 0.25, 0.25, 0.25]
    assert f"From profile {profile}" in shown.stdout


def test_a_layout_file_with_a_measurement_gives_its_answer(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    register(client, project)
    request = {
        "opening": {"layout": {"groups": [{"name": name} for name in NAMES]}},
        "measurement": {"step": 10, "unit_rates": [0.5, 2, 3, 4]},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    shown = cli.run("export", "shaped", "--layout", str(path), "--to", "nemo-automodel")
    assert trainers.nemo_automodel(shown.stdout, NAMES)["embed.weight"] == (2.0, 1.0)
    assert "the answer to the measurement at step 10" in shown.stdout


def test_the_policys_rule_about_weight_decay_goes_along(
    cli: Cli, client: AdvisorClient, project: str, layout: Path
) -> None:
    register(client, project, DECAY_KEPT)
    command = ("export", "shaped", "--layout", str(layout), "--to")
    shown = cli.run(*command, "nemo-automodel", "--optimizer", "AdamW")
    found = trainers.nemo_automodel(shown.stdout, NAMES)
    assert [found[name] for name in NAMES] == [(1.0, 1.0), *[(0.25, 4.0)] * 3]
    assert "The weight decay of a step is kept" in shown.stdout
    refused = cli.run(*command, "torchtitan", "--learning-rate", "1", ok=False)
    assert "give --weight-decay" in refused.stderr


def test_what_a_format_cannot_express_is_an_error_unless_allowed(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    names = ("embed_tokens.weight", "blocks.0.up.weight", "blocks.1.up.weight", "lm_head.weight")
    content = content_message(names)
    describe_tensors(content.layout, width=48)
    content.layout.groups[0].kind = layout_pb2.GROUP_KIND_EMBEDDING
    client.register_profile("lm", content, project=project)
    layout = layout_message(names)
    describe_tensors(layout, width=192)
    layout.groups[0].kind = layout_pb2.GROUP_KIND_EMBEDDING
    save_layout(layout, tmp_path / "layout.json")
    output = tmp_path / "axolotl.yaml"
    command = (
        *("export", "lm", "--layout", str(tmp_path / "layout.json"), "--to", "axolotl"),
        *("--learning-rate", "0.01", "-o", str(output)),
    )
    refused = cli.run(*command, ok=False)
    assert "all embeddings and heads one learning rate" in refused.stderr
    assert "nothing is written. --allow-loss writes the rest" in refused.stderr
    assert not output.exists()
    allowed = cli.run(*command, "--allow-loss")
    assert "warning: axolotl gives all embeddings and heads" in allowed.stderr
    assert yaml.safe_load(output.read_text())["embedding_lr"] == 0.005


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent", "--to", "csv"), "runs/absent; it has not measured yet"),
        (("absent", "--layout", "LAYOUT", "--to", "csv"), "profiles/absent; register it first"),
        (("absent.yaml", "--layout", "LAYOUT", "--to", "csv"), "absent.yaml cannot be read"),
        (("shaped", "--to", "csv"), "for a profile give --layout LAYOUT too"),
        (("shaped.yaml", "--to", "csv"), "shaped.yaml is a file, not a run; with a profile's file"),
        (("shaped", "--layout", "absent.json", "--to", "csv"), "absent.json cannot be read"),
        (("shaped", "--layout", "BROKEN", "--to", "csv"), "broken.yaml is not YAML"),
        (("shaped", "--layout", "OTHER", "--to", "csv"), "2 of 2 groups have no counterpart in"),
        (("shaped", "--layout", "NAMES", "--to", "csv"), "every multiplier would be 1: nothing is"),
        (
            ("shaped", "--layout", "LAYOUT", "--to", "deepspeed"),
            "give --learning-rate, the largest",
        ),
        (("shaped", "--layout", "LAYOUT", "--to", "tensorflow"), "'tensorflow' is not one of"),
        (("x", "--to", "csv", "--learning-rate", "nan"), "--learning-rate nan is not a finite"),
        (("x", "--to", "csv", "--weight-decay", "-1"), "--weight-decay -1.0 is not a finite"),
        (
            ("x", "--to", "csv", "--learning-rate", "1", "--min-learning-rate", "2"),
            "--min-learning-rate 2.0 is above --learning-rate 1.0",
        ),
        (("shaped", "--layout", "LAYOUT", "--to", "csv", "-o", "no/x"), "no/x cannot be written"),
    ],
)
def test_invalid_input_is_a_clear_error(
    arguments: tuple[str, ...],
    message: str,
    cli: Cli,
    client: AdvisorClient,
    project: str,
    layout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    register(client, project)
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "other.yaml").write_text("- stranger.weight\n- stranger.bias\n")
    (tmp_path / "names.yaml").write_text("".join(f"- {name}\n" for name in NAMES))
    files = {
        "LAYOUT": str(layout), "BROKEN": "broken.yaml", "OTHER": "other.yaml",
        "NAMES": "names.yaml",
    }  # fmt: skip
    refused = cli.run("export", *(files.get(a, a) for a in arguments), ok=False)
    assert message in " ".join(refused.stderr.split())
    assert not refused.stdout


def test_a_recipe_gives_decay_epsilon_and_initial_values_too(
    cli: Cli, client: AdvisorClient, project: str, layout: Path
) -> None:
    register(client, project, DECAY_KEPT)
    command = ("export", "shaped", "--layout", str(layout), "--recipe", "completep")
    shown = cli.run(*command, "--to", "csv")
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    columns = ("multiplier", "weight_decay_factor", "epsilon_factor", "initial_rms", "outcome")
    # Four times as wide: learning rates by 1/4, initial values by 1/2. The decay of a step is the
    # learning rate times the setting, so the recipe's setting keeps it.
    assert [tuple(row[column] for column in columns) for row in rows[:2]] == [
        ("1.0", "1.0", "1.0", "0.02", "prior"),
        ("0.25", "4.0", "0.25", "0.01", "prior"),
    ]
    assert "scale each parameter to its `initial_rms`" in " ".join(shown.stderr.split())
    assert "The recipe holds only if: " in shown.stderr
    groups = json.loads(cli.run(*command, "--to", "pytorch", *LEARNING_RATE).stdout)["groups"]
    assert [group.get("epsilon_factor") for group in groups[:2]] == [None, 0.25]
    assert groups[1]["initial_rms"][0] == 0.01
    refused = cli.run(*command, "--to", "nemo-automodel", ok=False)
    assert "the recipe scales epsilon of 3 parameters, and this format has no" in refused.output
    written = cli.run(*command, "--to", "nemo-automodel", "--allow-loss").stdout
    assert trainers.nemo_automodel(written, NAMES)["blocks.1.up.weight"] == (0.25, 4.0)
    refused = cli.run("export", "night", "--recipe", "completep", "--to", "csv", ok=False)
    assert "--recipe cannot change the multipliers of a run" in refused.output


def test_a_run_that_followed_a_recipe_is_exported_with_the_version_that_it_followed(
    cli: Cli, client: AdvisorClient, project: str, layout: Path
) -> None:
    register(client, project)
    opening = read_request(layout, f"projects/{project}/profiles/shaped").opening
    cli.run("recipe", "set", "ours", "completep")
    opening.run, opening.recipe = run_name("big", project), f"projects/{project}/recipes/ours"
    session = client.open_run(opening)
    session.recommend(pb.Measurement(unit_rates=[1.0, 8.0, 12.0, 16.0]))
    session.close()
    cli.run("recipe", "set", "ours", "standard")
    eventually(lambda: len(list(client.get_run_history("big", project=project))) == 1)
    shown = cli.run("export", "big", "--to", "csv")
    [row, *_] = [r for r in csv.DictReader(io.StringIO(shown.stdout)) if "blocks" in r["name"]]
    assert (row["epsilon_factor"], row["initial_rms"]) == ("0.25", "0.01")
