"""The command line, against a real service."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from google.protobuf import json_format

from advisor.local.server import LocalServer
from fslr import AdvisorClient, ProfileFileError, load_profile, save_layout, save_profile
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2
from tests.building import (
    NAMES,
    content_message,
    describe_tensors,
    layout_message,
    opening_message,
)
from tests.commands import Cli
from tests.waiting import eventually


@pytest.fixture
def file(tmp_path: Path) -> str:
    content = content_message(labels={"team": "nlp"})
    content.provenance.model = "char GPT [32]"
    content.docs = "Use with warm-up."
    save_profile(content, tmp_path / "profile.json")
    return str(tmp_path / "profile.json")


def test_a_file_is_registered_once(cli: Cli, file: str, project: str) -> None:
    first = cli.run("profile", "register", "gpt", file).stdout
    assert first.startswith(f"registered projects/{project}/profiles/gpt@1  ")
    again = cli.run("profile", "register", "gpt", file).stdout
    assert "exists already, unchanged: " in again
    assert again.split()[-2:] == first.split()[-2:]
    answer = cli.json("profile", "register", "gpt", file)
    assert answer["profile"]["version"] == 1
    assert "created" not in answer  # protobuf's JSON omits false


def test_profiles_are_listed_and_filtered(cli: Cli, file: str, project: str) -> None:
    assert f"no profiles in project {project}" in cli.run("profile", "list").stdout
    assert cli.json("profile", "list") == []
    cli.run("profile", "register", "gpt", file)
    table = cli.run("profile", "list").stdout
    assert "gpt@1" in table
    assert "char GPT [32]" in table  # brackets are not markup
    (listed,) = cli.json("profile", "list", "--filter", "labels.team=nlp")
    assert listed["name"] == f"projects/{project}/profiles/gpt@1"
    assert cli.json("profile", "list", "--filter", "labels.team=x") == []


def test_show_prints_the_origin_and_rates_of_a_profile(cli: Cli, file: str) -> None:
    cli.run("profile", "register", "gpt", file)
    output = cli.run("profile", "show", "gpt").stdout
    for expected in (
        *("char GPT [32]", "team=nlp", "Use with warm-up.", "the defaults"),
        *("blocks.*.up.weight", "step 10", "21, recorded at 3 of them"),
    ):
        assert expected in output
    assert len(cli.json("profile", "show", "gpt@1")["profile"]["content"]["points"]) == 3


def test_runs_are_listed_shown_and_watched(cli: Cli, client: AdvisorClient, project: str) -> None:
    assert f"no runs in project {project}" in cli.run("run", "list").stdout
    client.register_profile("gpt", content_message(), project=project)
    run = f"projects/{project}/runs/night"
    opening = opening_message(f"projects/{project}/profiles/gpt", run=run)
    session = client.open_run(opening)
    for step in (0, 25):
        session.recommend(
            pb.Measurement(
                step=step,
                unit_rates=[1, 0, 1, 1e-5],
                loss=2.5,
                total_rate=0.125,
                shares=[0.625, 0.5, -0.125, 0],
                linearity_error=0.03,
            )
        )
    session.close()
    eventually(lambda: [r.measurements for r in client.list_runs(project=project)] == [2])
    assert "night" in cli.run("run", "list").stdout
    assert cli.json("run", "list")[0]["measurements"] == 2
    output = cli.run("run", "show", "night", "--groups").stdout
    for expected in (
        "2 measurements, 0 lost", "held: zero rate", "at a bound", "embed.weight", "2.5",
        "0.125", "62.5%", "-12.5%", "3%", "63%", "blocks.*.up.weight", "outputs move by 0.125",
    ):  # fmt: skip
        assert expected in output
    role = cli.run("run", "show", "night", "--role", "blocks.*.up.weight", "--last", "0").stdout
    assert "blocks.1.up.weight" in role
    assert "nonlinear" not in role
    unknown = cli.run("run", "show", "night", "--role", "x", ok=False).stderr
    assert "has no role 'x'; its roles are embed.weight, blocks.*.up.weight" in unknown
    assert len(cli.json("run", "show", "night")["events"]) == 2
    client.report_run_metrics("night", 25, {"auc": 0.75}, project=project)
    eventually(lambda: list(client.list_run_metrics("night", project=project)))
    page = cli.run("report", "night", "-o", "-", "--metric", "auc").stdout
    assert "How rates move with auc" in page
    unknown = cli.run("report", "night", "--metric", "acu", ok=False).stderr
    assert "has no metric 'acu'; its metrics: auc" in unknown
    watched = cli.run("run", "watch", "night", "--count", "2").stdout.splitlines()
    assert [line.split()[0] for line in watched] == ["step", "0", "25"]
    lines = cli.run("run", "watch", "night", "--count", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["measurement"].get("step", 0) for line in lines] == [0, 25]


def test_a_watch_ends_with_its_run(cli: Cli, client: AdvisorClient, project: str) -> None:
    refused = cli.run("run", "watch", "nihgt", ok=False)
    assert "there is no run" in refused.stderr
    assert "--wait waits for it to start" in refused.stderr
    client.register_profile("gpt", content_message(), project=project)
    opening = opening_message(
        f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/night"
    )
    opening.total_steps = 30
    opening.policy.min_interval_steps = opening.policy.max_interval_steps = 10

    def measure(step: int) -> None:
        client.recommend_once(
            opening,
            pb.Measurement(step=step, unit_rates=[1] * 4, learning_rates=[0.01] * 4, loss=2.5),
        )
        eventually(lambda: client.get_run("night", project=project).last_step == step)

    measure(1)
    (listed,) = cli.json("run", "list")
    assert (listed["loss"], listed["learning_rate"]) == (2.5, 0.01)
    first, second, _, row = (line.split() for line in cli.run("run", "list").stdout.splitlines())
    assert " ".join(first) == "learning times last measured"
    assert " ".join(second) == "run state step loss rate measured profile (UTC)"
    assert row[1:6] == ["training", "1", "2.5", "0.01", "1"]
    watched: list[str] = []
    thread = threading.Thread(
        target=lambda: watched.append(cli.run("run", "watch", "night").stdout), daemon=True
    )
    thread.start()
    measure(11)
    measure(21)  # the next measurement would be at step 31
    thread.join(20)
    assert [line.split()[0] for line in watched[0].splitlines()] == ["step", "1", "11", "21"]
    assert "finished" in cli.run("run", "list").stdout
    again = cli.run("run", "watch", "night", "--json").stdout.splitlines()
    ids = [json.loads(line)["id"] for line in again]
    assert len(ids) == 3
    rest = cli.run("run", "watch", "night", "--json", "--after-id", ids[1]).stdout.splitlines()
    assert [json.loads(line)["id"] for line in rest] == ids[2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "show", "gtp"], "there is no profile projects/"),
        (["profile", "show", "Not/a/name"], "must read projects/{project}/profiles/{profile}"),
        (["profile", "register", "gpt", "missing.json"], "missing.json cannot be read"),
        (["profile", "list", "--filter", "x"], "is not of the form labels.KEY=VALUE"),
        (["run", "show", "night"], "there is no run projects/"),
        (["report", "night"], "(`advisor run list` shows all runs)"),
        (
            ["report", "night", "--pdf", "-o", "a.pdf"],
            "-o names the HTML file, and --pdf writes a.pdf",
        ),
        (["report", "night", "--pdf", "-o", "-"], "--pdf needs a file; give -o FILE instead of -"),
        (["pilot", "gpt@1"], "'gpt@1' is not a profile's name; give one such as char-gpt"),
        (["run", "watch", "night", "--after-id", "x"], "is not the id of an event"),
        (["health", "-a", "127.0.0.1:1"], "no advisor answers at 127.0.0.1:1"),
        (["profile", "list", "-a", "127.0.0.1:1"], "start one with `advisor serve`"),
        (["serve", "--port", "70000"], "setting port: Input should be less than or equal to 65535"),
        (
            ["serve", "--redis-url", "http://x"],
            "not start with a known scheme; the forms are redis://",
        ),
    ],
)
def test_errors_are_one_line_with_a_remedy(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli.run(*arguments, ok=False)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert result.stdout == "" or arguments[:2] == ["run", "watch"]


def test_health_reports_serving(cli: Cli, server: LocalServer) -> None:
    assert cli.run("health").stdout.strip() == f"{server.address}: SERVING"
    assert cli.json("health") == {"address": server.address, "status": "SERVING"}


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli.run("--version").stdout.startswith("fslr-advisor ")


def test_a_loaded_profile_equals_the_saved_one(tmp_path: Path) -> None:
    save_profile(content_message(), tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json") == content_message()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: "),
        ('{"layuot": {}}', 'is not a profile: .*no field named "layuot"'),
    ],
)
def test_a_file_that_is_not_a_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.json").write_text(text, "utf-8")
    with pytest.raises(ProfileFileError, match=message):
        load_profile(tmp_path / "p.json")
    (tmp_path / "p.json").write_bytes(b"\xff")
    with pytest.raises(ProfileFileError, match="cannot be read"):
        load_profile(tmp_path / "p.json")


def test_aliases_are_moved_and_versions_deleted(cli: Cli, file: str) -> None:
    cli.run("profile", "register", "gpt", file)
    assert (
        "prod now names gpt@1 (new alias)  etag 1"
        in cli.run("profile", "alias", "gpt@1", "prod").stdout
    )
    refused = cli.run("profile", "delete", "gpt@1", ok=False)
    assert "is named by alias prod; move the alias to a different version first" in refused.output
    lost = cli.run("profile", "alias", "gpt@1", "prod", "--etag", "0", ok=False)
    assert "moved since it was read" in lost.output
    cli.run("profile", "alias", "gpt", "prod", "--delete")
    assert "deleted gpt@1" in cli.run("profile", "delete", "gpt@1").stdout
    written = cli.json("audit")
    assert [event["action"] for event in written] == [
        *("delete", "delete alias", "set alias", "register"),
    ]
    assert "set alias" in cli.run("audit").stdout
    newest = cli.run("audit", "--json", "-n", "1")
    assert len(json.loads(newest.stdout)) == 1
    assert newest.stderr == "these are the newest 1; -n shows more\n"


def test_an_exported_version_can_be_imported_again(cli: Cli, file: str, tmp_path: Path) -> None:
    cli.run("profile", "register", "gpt", file)
    for name in ("gpt.yaml", "gpt.json"):
        out = str(tmp_path / name)
        cli.run("profile", "export", "gpt", "--output", out)
        assert "exists already, unchanged: " in cli.run("profile", "import", out).stdout
    edited = cli.run("profile", "export", "gpt").stdout.replace("char GPT [32]", "char GPT, edited")
    (tmp_path / "other.yaml").write_text(edited)
    assert "registered" in cli.run("profile", "import", str(tmp_path / "other.yaml")).stdout
    difference = cli.json("profile", "diff", "gpt", "other")
    assert difference["changed"] == {
        "provenance model": {"old": "char GPT [32]", "new": "char GPT, edited"}
    }
    assert difference["ratios"]["head.weight"] == [1.0, 1.0, 1.0]
    output = cli.run("profile", "diff", "gpt", "other").stdout
    assert "char GPT, edited" in output
    assert "▅▅▅" in output
    assert "have the same content" in cli.run("profile", "diff", "gpt", "gpt@1").stdout


def test_profile_check_shows_shapes_kinds_priors_and_initial_weights(
    cli: Cli, tmp_path: Path
) -> None:
    content = content_message()
    describe_tensors(content.layout, width=48)
    save_profile(content, tmp_path / "shaped.yaml")
    cli.run("profile", "register", "shaped", str(tmp_path / "shaped.yaml"))
    shown = cli.run("profile", "show", "shaped").stdout
    assert "hidden 48x48" in shown
    assert "0.02" in shown
    layout = layout_message()
    describe_tensors(layout, width=192)
    layout.groups[0].kind = layout_pb2.GROUP_KIND_EMBEDDING
    save_layout(layout, tmp_path / "layout.yaml")
    assert "kind: embedding" in (tmp_path / "layout.yaml").read_text()
    output = cli.run("profile", "check", "shaped", str(tmp_path / "layout.yaml")).stdout
    assert "hidden 192x192" in output
    assert "embedding 192x192" in output
    assert "192->192" in output
    assert "warning: initial weights of blocks.*.up.weight, head.weight do not" in output
    found = cli.json("profile", "check", "shaped", str(tmp_path / "layout.yaml"))
    assert len(found["warnings"]) == 2
    head = found["mappings"][3]
    assert head["shape"] == [192, 192]
    assert (head["kind"], head["fan_in"], head["fan_out"]) == ("GROUP_KIND_HIDDEN", 192, 192)


def test_profile_check_shows_how_a_layout_maps(cli: Cli, file: str, tmp_path: Path) -> None:
    cli.run("profile", "register", "gpt", file)
    layout = tmp_path / "layout.yaml"
    layout.write_text("- embed.weight\n- blocks.0.up.weight\n")
    output = cli.run("profile", "check", "gpt", str(layout)).stdout
    assert "1 by name, 1 by role" in output
    assert "The layout has no parameter counts" in output
    layout.write_text("- {name: embed.weight, parameter_count: 4}\n- blocks.0.up.weight\n")
    assert "no parameter counts" not in cli.run("profile", "check", "gpt", str(layout)).stdout
    layout.write_text("- embed.weight\n- stranger\n")
    refused = cli.run("profile", "check", "gpt", str(layout), ok=False)
    assert "1 of 2 groups has no counterpart in the profile: stranger" in refused.output
    layout.write_text("groups: 7")
    assert "is not a layout: " in cli.run("profile", "check", "gpt", str(layout), ok=False).output
    layout.write_text("a: [")
    assert "is not YAML: " in cli.run("profile", "check", "gpt", str(layout), ok=False).output


def test_explain_shows_how_a_multiplier_was_computed(
    cli: Cli, client: AdvisorClient, file: str, project: str, tmp_path: Path
) -> None:
    cli.run("profile", "register", "gpt", file)
    request = pb.RecommendLRRequest(
        opening=opening_message(f"projects/{project}/profiles/gpt"),
        measurement=pb.Measurement(step=5, unit_rates=[0.5, 1e-5, 3.0, 0.0]),
    )
    request_file = tmp_path / "request.json"
    request_file.write_text(json.dumps(json_format.MessageToDict(request)))
    rows = cli.json("explain", "gpt", str(request_file))["groups"]
    assert [(row["raw"], row["multiplier"], row["limits"]) for row in rows] == [
        (2.0, 2.0, []),
        (pytest.approx(2e5), 4.0, ["max multiplier"]),
        (pytest.approx(1.0), pytest.approx(1.0), []),
        (0.0, 1.0, []),
    ]
    printed = cli.run("explain", "gpt", str(request_file)).stdout
    assert "raw = reference / measured" in printed
    assert "4 groups: 2 matched, 1 clamped, 1 held zero rate; multipliers from 1 to 4" in printed
    assert "limit max multiplier: The multiplier was above `max_multiplier`." in printed
    assert cli.json("explain", "gpt", str(request_file))["counts"]["matched"] == 2
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["embed.weight", "head.weight"]))
    assert "references at step 5" in cli.run("explain", "gpt", str(names), "--step", "5").stdout
    request.opening.run = f"projects/{project}/runs/night"
    client.recommend_once(request.opening, request.measurement)

    def stored() -> bool:
        return bool(list(client.list_runs(project=project)))

    eventually(stored)
    assert cli.json("explain", "--run", "night")["groups"] == rows
    missing = cli.run("explain", "--run", "night", "--step", "6", ok=False)
    assert "run night has no measurement at step 6; its measurements are at 5" in missing.output
    for arguments in (
        (),
        ("gpt",),
        ("gpt", "--run", "night"),
        ("gpt", str(request_file), "--run", "night"),
    ):
        refused = cli.run("explain", *arguments, ok=False)
        assert "give a profile and a layout file, or --run" in refused.output


def test_measurements_of_an_earlier_layout_are_not_explained_with_a_later_one(
    cli: Cli, client: AdvisorClient, file: str, project: str
) -> None:
    cli.run("profile", "register", "gpt", file)
    cli.run("policy", "set", "team", "-r", "max_multiplier=4")
    profile, run = f"projects/{project}/profiles/gpt", f"projects/{project}/runs/night"
    for step, names in ((0, NAMES), (10, NAMES), (20, NAMES[:2])):
        client.recommend_once(
            opening_message(profile, names, run=run),
            pb.Measurement(step=step, unit_rates=[1.0] * len(names)),
        )
    eventually(lambda: len(list(client.get_run_history("night", project=project))) == 3)
    assert len(cli.json("explain", "--run", "night")["groups"]) == 2
    refused = cli.run("explain", "--run", "night", "--step", "10", ok=False)
    assert (
        "run night was restarted with a layout of 2 groups, but its measurement at step 10 has 4"
    ) in refused.output
    tried = cli.json("policy", "try", "team", "--run", "night")
    assert [event["step"] for event in tried["runs"]["night"]] == [20]
    assert tried["skipped"]["night"] == "2 measurements of an earlier layout"


def test_recordings_are_merged_into_one_file(cli: Cli, tmp_path: Path) -> None:
    for i, rate in enumerate((1.0, 4.0)):
        save_profile(content_message(rate=rate), tmp_path / f"seed{i}.yaml")
    files = [str(tmp_path / f"seed{i}.yaml") for i in range(2)]
    out = str(tmp_path / "merged.yaml")
    assert "2 recordings, median spread 98" in cli.run("profile", "merge", *files, "-o", out).stdout
    assert load_profile(out).points[0].unit_rates[0] == pytest.approx(2.0)
    refused = cli.run("profile", "merge", files[0], "-o", out, ok=False)
    assert "recordings: 1, but at least 2 are needed" in refused.output


def test_policies_are_set_printed_compared_and_replayed(
    cli: Cli, client: AdvisorClient, file: str, project: str, tmp_path: Path
) -> None:
    assert "no policies" in cli.run("policy", "list").stdout
    set_ = cli.run("policy", "set", "team", "-r", "max_multiplier=4", "-r", "depth_rule=copy")
    assert set_.stdout.startswith(f"set projects/{project}/policies/team@1")
    assert "depth_rule=copy, max_multiplier=4" in cli.run("policy", "list").stdout
    rules = cli.run("policy", "show", "team").stdout
    assert "max_multiplier: 4.0" in rules
    edited = tmp_path / "team.yaml"
    edited.write_text(rules.replace("max_multiplier: 4.0", "max_multiplier: 2.0"))
    again = cli.run("policy", "set", "team", str(edited), "--expected-version", "1").stdout
    assert "team@2" in again
    lost = cli.run("policy", "set", "team", str(edited), "--expected-version", "1", ok=False)
    assert "another client changed it" in lost.output
    assert cli.json("policy", "diff", "team@1", "team@2") == {
        "max_multiplier": {"old": 4.0, "new": 2.0}
    }
    assert "the rules are the same" in cli.run("policy", "diff", "team@1", "team@1").stdout
    changed = cli.run("policy", "set", "team", "-r", "slew_limit=2").stdout
    assert "team@3" in changed
    assert "slew_limit" in changed
    assert "max_multiplier" not in changed  # earlier rules are kept
    assert client.get_policy("team", project=project).policy.max_multiplier == 2.0
    assert "nothing to set; give a file" in cli.run("policy", "set", "team", ok=False).output
    cli.run("policy", "set", "team", "-r", "slew_limit=none")
    for wrong, message in (
        ("slew", "has no value; write slew=VALUE"),
        ("sloth=3", "not a valid policy: "),
        ("slew_limit=0.5", r"policy.slew_limit: 0.5 is not a finite number above 1"),
    ):
        assert message in cli.run("policy", "set", "x", "-r", wrong, ok=False).output

    assert "has no stored runs" in cli.run("policy", "try", "team", ok=False).output
    cli.run("profile", "register", "gpt", file)
    opening = opening_message(
        f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/night"
    )
    multipliers = [1.0] * 4
    for step in (0, 25):
        measurement = pb.Measurement(
            step=step,
            interval_steps=step,
            unit_rates=[0.25, 2.0, 3.0, 4.0],
            multipliers=multipliers,
        )
        multipliers = list(client.recommend_once(opening, measurement).multipliers)
    eventually(lambda: len(list(client.get_run_history("night", project=project))) == 2)
    tried = cli.json("policy", "try", "team")["runs"]["night"]
    assert [event["before"][0] for event in tried] == pytest.approx([4.0, 4.0])
    stored = [
        list(e.recommendation.multipliers) for e in client.get_run_history("night", project=project)
    ]
    assert [event["before"] for event in tried] == stored  # bit-identical
    assert [event["after"][0] for event in tried] == [2.0, 2.0]
    output = cli.run("policy", "try", str(edited), "--run", "night").stdout
    assert "1 of 4" in output
