"""Recipes as resources: versions, audit, deletion, and the commands that store them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToJson

from fslr import AdvisorClient, RecipeInUseError, RecipeMovedError, RecipeNotFoundError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, recipe_service_pb2_grpc
from fslr.client.status_errors import service_error
from tests.commands import Cli
from tests.integration.recipe_building import (
    BATCH,
    FAN_IN,
    LEARNING_RATE,
    base_content,
    factor,
    opened,
    table,
)
from tests.waiting import eventually


def test_a_recipe_has_versions_and_an_audit_log(client: AdvisorClient, project: str) -> None:
    first = client.set_recipe("ours", table(), project=project)
    again = client.set_recipe("ours", table(), project=project)
    second = client.set_recipe("ours", table(-0.5), expected_version=1, project=project)
    assert [(r.recipe.version, r.created) for r in (first, again, second)] == [
        *((1, True), (1, False), (2, True)),
    ]
    assert client.get_recipe("ours@1", project=project).recipe == first.recipe.recipe
    latest = client.get_recipe("ours", project=project)
    assert latest.name == f"projects/{project}/recipes/ours@2"
    assert latest.recipe.rows[0].factors[0] == factor(LEARNING_RATE, {FAN_IN: -0.5, BATCH: 0.5})
    assert list(latest.recipe.covers) == [FAN_IN, BATCH]
    listed = list(client.list_recipes(project=project))
    assert [r.name for r in listed if r.version] == [latest.name]
    assert "mup-adam" in {r.name for r in listed if not r.version}
    assert client.get_shipped_recipe("mup-adam").recipe.optimizers == ["Adam"]
    with pytest.raises(RecipeMovedError, match=r"latest version of recipe .*ours' is 2, not 1 as"):
        client.set_recipe("ours", table(), expected_version=1, project=project)
    with pytest.raises(RecipeNotFoundError, match="its versions are 1 to 2"):
        client.get_recipe("ours@3", project=project)
    with pytest.raises(RecipeNotFoundError, match=r"did you mean .*/ours\?"):
        client.get_recipe("our", project=project)
    with pytest.raises(RecipeNotFoundError, match=r"did you mean mup-adam\?"):
        client.get_recipe("mup-adam", project=project)
    client.delete_recipe("ours", expected_version=2, project=project)
    with pytest.raises(RecipeNotFoundError, match="there is no recipe"):
        client.delete_recipe("ours", project=project)
    third = client.set_recipe("ours", table(), project=project)
    assert third.recipe.version == 3  # numbers are never used again
    events = list(client.list_audit_events(project=project))
    assert [event.action for event in events] == [
        *("set recipe", "delete recipe", "set recipe", "set recipe"),
    ]
    assert events[0].name == "recipes/ours@3"


def test_a_recipe_that_policies_or_profiles_name_is_not_deleted(
    client: AdvisorClient, project: str
) -> None:
    name = f"projects/{project}/recipes/ours"
    with pytest.raises(RecipeNotFoundError, match="there is no recipe"):
        client.set_policy("team", policy_pb2.Policy(recipe=name), project=project)
    client.set_recipe("ours", table(), project=project)
    client.set_policy("team", policy_pb2.Policy(recipe=f"{name}@1"), project=project)
    client.set_policy("team", policy_pb2.Policy(), project=project)
    with pytest.raises(RecipeInUseError, match=r"ours is named by .*/policies/team@1; delete"):
        client.delete_recipe("ours", project=project)
    client.delete_policy("team", project=project)
    content = base_content(policy_pb2.Policy(recipe=name))
    client.register_profile("gpt", content, project=project)
    with pytest.raises(RecipeInUseError, match=r"ours is named by .*/profiles/gpt@1; delete"):
        client.delete_recipe("ours", project=project)
    client.delete_profile("gpt", all_versions=True, project=project)
    client.delete_recipe("ours", project=project)


def sent(client: AdvisorClient, method: str, request: Any) -> Any:
    """Return the answer to a request that the client's own methods never send."""
    stub = recipe_service_pb2_grpc.RecipeServiceStub(client.channel())
    try:
        return getattr(stub, method)(request)
    except grpc.RpcError as error:
        raise service_error(error, client.address) from error


def test_commands_store_recipes_and_show_them_beside_measurements(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    assert "no stored recipes in project" in cli.run("recipe", "stored").stdout
    stored = cli.run("recipe", "set", "ours", "mup-adam").stdout
    assert f"set projects/{project}/recipes/ours@1" in stored
    shown = cli.run("recipe", "show", f"projects/{project}/recipes/ours@1").stdout
    assert "hidden, convolution, expert" in shown
    file = tmp_path / "ours.yaml"
    cli.run("recipe", "get", "ours", "--output", str(file))
    assert "unchanged" in cli.run("recipe", "set", "ours", str(file)).stdout
    file.write_text(file.read_text("utf-8").replace("fan_in: -1\n", "fan_in: -0.75\n"), "utf-8")
    assert cli.json("recipe", "set", "ours", str(file), "--expected-version", "1")["created"]
    assert [r["version"] for r in cli.json("recipe", "stored")] == [2]
    assert "ours@2" in cli.run("recipe", "stored").stdout
    file.write_text("groups: [{kinds: [hiden]}]", "utf-8")
    refused = cli.run("recipe", "set", "ours", str(file), ok=False)
    assert "'hiden' is not a kind; did you mean hidden?" in refused.output
    refused = cli.run("recipe", "get", "our", ok=False)
    assert f"did you mean projects/{project}/recipes/ours?" in refused.output
    log = cli.run("audit").stdout
    assert "rows, for Adam" in log

    client.register_profile("gpt", base_content(), project=project)
    cli.run("policy", "set", "team", "-r", f"recipe=projects/{project}/recipes/ours")
    assert f"recipe: projects/{project}/recipes/ours" in cli.run("policy", "show", "team").stdout
    refused = cli.run("policy", "set", "team", "-r", "recipe=mup-adm", ok=False)
    assert "did you mean mup-adam" in refused.output
    refused = cli.run("recipe", "delete", "ours", "--yes", ok=False)
    assert "is named by" in refused.output
    cli.run("policy", "delete", "team", "--yes")

    request = pb.RecommendLRRequest(opening=opened(project))
    request.measurement.unit_rates.extend([1.0, 8.0, 12.0, 16.0 * 9])
    request.measurement.relative_errors.extend([0.1] * 4)
    asked = tmp_path / "request.json"
    asked.write_text(MessageToJson(request), "utf-8")
    shown = cli.json("explain", "gpt", str(asked), "--recipe", "mup-adam")
    assert shown["recipe"] == "mup-adam"
    assert [
        (r["role"], r["recipe"], round(r["measured"], 4), r["agrees"]) for r in shown["roles"]
    ] == [
        ("embed.weight", 1.0, 1.0, True),
        ("blocks.*.up.weight", 0.25, 0.25, True),
        ("head.weight", 0.25, 0.0278, False),
    ]
    text = cli.run("explain", "gpt", str(asked), "--recipe", "mup-adam").stdout
    assert re.search(r"head.weight +0.25 +0.02778 +10% +0.1111 +differs", text)

    run = opened(project, f"projects/{project}/recipes/ours", f"projects/{project}/runs/night")
    session = client.open_run(run)
    session.recommend(request.measurement)
    session.close()
    eventually(lambda: len(list(client.get_run_history("night", project=project))) == 1)
    rules = tmp_path / "rules.yaml"
    rules.write_text("recipe: completep", "utf-8")
    [event] = cli.json("policy", "try", str(rules), "--run", "night")["runs"]["night"]
    assert event["after"] == event["before"]  # the opening has a recipe of its own, a stored one
    cli.run("recipe", "delete", "ours", "--yes")
    assert cli.json("recipe", "stored") == []
