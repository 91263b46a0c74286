"""Whole profiles, policies and runs are deleted, by operators only and never by accident."""

from __future__ import annotations

import pytest

from advisor.local.server import LocalServer
from fslr import (
    AdvisorClient,
    InvalidRequestError,
    PermissionDeniedError,
    PolicyInUseError,
    PolicyMovedError,
    PolicyNotFoundError,
    ProfileNotFoundError,
    RunNotFoundError,
    VersionInUseError,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.operator_tokens import Tokens
from tests.redis_servers import RedisServer
from tests.waiting import eventually


def measure(client: AdvisorClient, project: str, run: str) -> None:
    """Store one measurement of a run on the profile ``gpt``."""
    opening = opening_message(
        f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/{run}"
    )
    client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))
    eventually(lambda: any(r.name.endswith(run) for r in client.list_runs(project=project)))


def audit(client: AdvisorClient, project: str) -> list[tuple[str, str, str]]:
    return [
        (event.action, event.name.rsplit("/", 1)[-1], event.detail)
        for event in client.list_audit_events(project=project)
        if event.action.startswith("delete")
    ]


def test_a_profile_is_deleted_with_all_its_versions(client: AdvisorClient, project: str) -> None:
    for rate in (1.0, 2.0):
        client.register_profile("gpt", content_message(rate=rate), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    with pytest.raises(
        VersionInUseError, match="gpt is named by alias prod; delete the alias first"
    ):
        client.delete_profile("gpt", all_versions=True, project=project)
    assert list(client.get_profile("gpt", project=project).versions) == [1, 2]
    client.delete_alias("gpt", "prod", project=project)
    with pytest.raises(InvalidRequestError, match="has no version number"):
        client.delete_profile("gpt", project=project)
    with pytest.raises(InvalidRequestError, match="gpt@1"):
        client.delete_profile("gpt@1", all_versions=True, project=project)
    client.delete_profile("gpt", all_versions=True, project=project, request_id="once")
    client.delete_profile("gpt", all_versions=True, project=project, request_id="once")  # a retry
    with pytest.raises(ProfileNotFoundError, match="there is no profile"):
        client.delete_profile("gpt", all_versions=True, project=project)
    assert list(client.list_profiles(project=project)) == []
    assert audit(client, project)[0] == ("delete profile", "gpt", "versions 1, 2")
    again = client.register_profile("gpt", content_message(), project=project)
    assert again.profile.version == 3


def test_a_policy_is_deleted_unless_a_profile_names_it(client: AdvisorClient, project: str) -> None:
    client.set_policy("team", policy_pb2.Policy(max_multiplier=2), project=project)
    for version in ("", "@1"):
        content = content_message(rate=1.0 + len(version))
        content.policy_name = f"projects/{project}/policies/team{version}"
        client.register_profile("gpt", content, project=project)
    client.register_profile("gpt", content_message(rate=9.0), project=project)
    with pytest.raises(PolicyInUseError, match=r"named by .*gpt@1, .*gpt@2; delete these"):
        client.delete_policy("team", project=project)
    for number in (1, 2):
        client.delete_profile(f"gpt@{number}", project=project)
    with pytest.raises(PolicyNotFoundError, match=r"no policy .*/teem; did you mean .*/team"):
        client.delete_policy("teem", project=project)
    with pytest.raises(PolicyMovedError, match="is 1, not 2 as expected"):
        client.delete_policy("team", expected_version=2, project=project)
    client.delete_policy("team", expected_version=1, project=project, request_id="once")
    client.delete_policy("team", expected_version=1, project=project, request_id="once")
    with pytest.raises(PolicyNotFoundError, match="there is no policy"):
        client.get_policy("team", project=project)
    assert audit(client, project)[0] == ("delete policy", "team", "versions up to 1")
    again = client.set_policy("team", policy_pb2.Policy(max_multiplier=2), project=project)
    assert again.policy.version == 2


def test_a_run_is_deleted_and_appears_again_if_it_still_trains(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", content_message(), project=project)
    measure(client, project, "night")
    client.delete_run("night", project=project, request_id="once")
    client.delete_run("night", project=project, request_id="once")
    with pytest.raises(RunNotFoundError, match="there is no run"):
        client.get_run("night", project=project)
    with pytest.raises(RunNotFoundError, match="there is no run"):
        client.delete_run("night", project=project)
    assert list(client.list_runs(project=project)) == []
    assert audit(client, project)[0] == ("delete run", "night", "1 measurements")
    measure(client, project, "night")
    assert client.get_run("night", project=project).measurements == 1


def test_commands_ask_before_they_delete(cli: Cli, client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    client.set_policy("team", policy_pb2.Policy(), project=project)
    measure(client, project, "night")
    commands = (
        ("profile", "delete", "gpt", "--all"),
        ("policy", "delete", "team"),
        ("run", "delete", "night"),
    )
    for command in commands:
        refused = cli.run(*command, ok=False)  # nobody can be asked in a script
        assert f"Delete {command[0]} {command[2]}" in refused.stderr
        assert "add --yes" in refused.stderr
    assert client.get_run("night", project=project)
    for command in commands:
        assert f"deleted {command[2]}" in cli.run(*command, "--yes").stdout
        assert "there is no" in cli.run(*command, "--yes", ok=False).stderr
        assert "there is no" in cli.run(*command, ok=False).stderr  # before it asks


def test_only_operators_delete(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        RedisServer(tmp_path_factory.mktemp("redis")) as store,
        LocalServer(None, "--redis-url", store.url, "--authenticate") as service,
    ):
        tokens = Tokens(store.url, "default")
        for role in ("viewer", "trainer"):
            with AdvisorClient(service.address, token=tokens.create(role)["token"]) as client:
                with pytest.raises(PermissionDeniedError, match="call needs the role operator"):
                    client.delete_run("night")
                with pytest.raises(PermissionDeniedError, match="call needs the role operator"):
                    client.delete_policy("team")
                with pytest.raises(PermissionDeniedError, match="call needs the role operator"):
                    client.delete_profile("gpt", all_versions=True)
