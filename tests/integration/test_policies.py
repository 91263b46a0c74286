"""Policies as resources: versions, and profiles that follow them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advisor.local.in_process import InProcessAdvisor
from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import (
    AdvisorClient,
    InvalidRequestError,
    PolicyMovedError,
    PolicyNotFoundError,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from tests.building import content_message, opening_message

CAREFUL = policy_pb2.Policy(max_multiplier=2.0)
BOLD = policy_pb2.Policy(
    max_multiplier=8.0, max_multiplier_without_prior=8.0, slew_limit=3.0, first_step_only=True
)


def ask(client: AdvisorClient, project: str) -> pb.RecommendLRResponse:
    opening = opening_message(f"projects/{project}/profiles/gpt")
    return client.recommend_once(opening, pb.Measurement(unit_rates=[0.01] * 4))


def test_a_policy_has_versions(client: AdvisorClient, project: str) -> None:
    first = client.set_policy("team", CAREFUL, project=project)
    again = client.set_policy("team", CAREFUL, project=project)
    second = client.set_policy("team", BOLD, project=project)
    assert [(r.policy.version, r.created) for r in (first, again, second)] == [
        *((1, True), (1, False), (2, True)),
    ]
    latest = client.get_policy("team", project=project)
    assert latest.name == f"projects/{project}/policies/team@2"
    assert (latest.policy.slew_limit, latest.policy.first_step_only) == (3.0, True)
    assert client.get_policy("team@1", project=project).policy.max_multiplier == 2.0
    client.set_policy("other", CAREFUL, project=project)
    assert [p.version for p in client.list_policies(project=project)] == [1, 2]
    actions = [event.action for event in client.list_audit_events(project=project)]
    assert actions == ["set policy"] * 3


def test_concurrent_updates_of_a_policy_have_one_winner(
    client: AdvisorClient, project: str
) -> None:
    client.set_policy("team", CAREFUL, expected_version=0, project=project)
    with pytest.raises(PolicyMovedError, match=r"latest version of policy .*/team' is 1, not none"):
        client.set_policy("team", BOLD, expected_version=0, project=project)

    def race(i: int) -> bool:
        rules = policy_pb2.Policy(max_multiplier=10.0 + i)
        try:
            client.set_policy("team", rules, expected_version=1, project=project)
        except PolicyMovedError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(race, range(20))) == 1
    assert client.get_policy("team", project=project).version == 2


def test_a_profile_follows_the_policy_that_it_names(client: AdvisorClient, project: str) -> None:
    client.set_policy("team", CAREFUL, project=project)
    content = content_message()
    content.policy_name = f"projects/{project}/policies/team"
    digest = client.register_profile("gpt", content, project=project).profile.digest
    answer = ask(client, project)
    assert max(answer.multipliers) == 2.0
    assert answer.policy == f"projects/{project}/policies/team@1"
    client.set_policy("team", BOLD, project=project)
    later = ask(client, project)
    assert max(later.multipliers) == 8.0
    assert (later.policy, later.digest) == (f"projects/{project}/policies/team@2", digest)
    pinned = content_message()
    pinned.policy_name = f"projects/{project}/policies/team@1"
    client.register_profile("gpt", pinned, project=project)
    assert max(ask(client, project).multipliers) == 2.0
    opening = opening_message(f"projects/{project}/profiles/gpt")
    opening.policy.max_multiplier = 3.0
    overridden = client.recommend_once(opening, pb.Measurement(unit_rates=[0.01] * 4))
    assert (max(overridden.multipliers), overridden.policy) == (3.0, "")


def test_invalid_references_to_policies_are_refused(client: AdvisorClient, project: str) -> None:
    content = content_message()
    for name, message in (
        ("team", r"content\.policy_name: "),
        ("projects/x/policies/team", "belongs to a different project than the profile"),
        (f"projects/{project}/policies/team@x", "is not a version number"),
    ):
        content.policy_name = name
        with pytest.raises(InvalidRequestError, match=message):
            client.register_profile("gpt", content, project=project)
    content.policy_name = f"projects/{project}/policies/team"
    with pytest.raises(PolicyNotFoundError, match=r"there is no policy .*/team; `advisor policy"):
        client.register_profile("gpt", content, project=project)
    with pytest.raises(InvalidRequestError, match=r"policy_name: .* is stored in the service"):
        InProcessAdvisor(content)
    content.policy.max_multiplier = 3.0
    with pytest.raises(InvalidRequestError, match="give the rules or a policy's name, not both"):
        client.register_profile("gpt", content, project=project)
    with pytest.raises(InvalidRequestError, match=r"policy\.slew_limit: 0\.5 is not"):
        client.set_policy("team", policy_pb2.Policy(slew_limit=0.5), project=project)
    with pytest.raises(InvalidRequestError, match="names a version; leave it out"):
        client.set_policy("team@1", CAREFUL, project=project)


def test_a_followed_policy_is_cached_while_redis_is_unavailable(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url) as service,
        AdvisorClient(service.address) as client,
    ):
        client.set_policy("team", CAREFUL)
        content = content_message()
        content.policy_name = "projects/default/policies/team"
        client.register_profile("gpt", content)
        before = ask(client, "default")
        os.kill(store.pid, signal.SIGKILL)
        after = ask(client, "default")
    assert after.stale
    assert (after.policy, list(after.multipliers)) == (before.policy, list(before.multipliers))


def test_the_error_for_an_unknown_policy_names_existing_ones(
    client: AdvisorClient, project: str
) -> None:
    client.set_policy("team", CAREFUL, project=project)
    client.set_policy("team", BOLD, project=project)
    with pytest.raises(PolicyNotFoundError, match=r"did you mean projects/.*/policies/team\?"):
        client.get_policy("taem", project=project)
    with pytest.raises(PolicyNotFoundError, match=r"policies/team@9; its versions are 1 to 2"):
        client.get_policy("team@9", project=project)


def test_policies_are_isolated_by_project(client: AdvisorClient, project: str) -> None:
    client.set_policy("team", CAREFUL, project=project)
    other = f"{project}-b"
    assert list(client.list_policies(project=other)) == []
    with pytest.raises(PolicyNotFoundError, match=r"there is no policy .*-b/policies/team"):
        client.get_policy("team", project=other)
    assert client.set_policy("team", BOLD, project=other).policy.version == 1
    assert client.get_policy("team", project=project).policy.max_multiplier == 2.0


def test_a_retried_policy_update_creates_one_version(client: AdvisorClient, project: str) -> None:
    first = client.set_policy("team", CAREFUL, project=project, request_id="r")
    client.set_policy("team", BOLD, project=project)
    again = client.set_policy("team", CAREFUL, project=project, request_id="r")
    assert (again.policy.version, again.created) == (first.policy.version, True)
    assert client.get_policy("team", project=project).version == 2


def test_the_error_for_rules_that_a_profile_does_not_support_names_their_source(
    client: AdvisorClient, project: str
) -> None:
    measured = policy_pb2.Policy(depth_rule=policy_pb2.DEPTH_RULE_MEASURED)
    client.set_policy("team", measured, project=project)
    content = content_message()
    content.policy_name = f"projects/{project}/policies/team"
    client.register_profile("gpt", content, project=project)
    policy_error = (
        r"the depth rule of its policy projects/.*/policies/team@1 cannot be used: measured needs"
    )
    with pytest.raises(InvalidRequestError, match=rf"opening\.profile: {policy_error}"):
        ask(client, project)
    with pytest.raises(InvalidRequestError, match=rf"name: {policy_error}"):
        client.check_layout("gpt", content.layout, project=project)
    opening = opening_message(f"projects/{project}/profiles/gpt")
    opening.policy.CopyFrom(measured)
    opening_error = r"opening\.policy\.depth_rule: measured needs"
    with pytest.raises(InvalidRequestError, match=opening_error):
        client.recommend_once(opening, pb.Measurement(unit_rates=[1.0] * 4))
    content.ClearField("policy_name")
    with pytest.raises(InvalidRequestError, match=opening_error):
        InProcessAdvisor(content).open_run(opening)
