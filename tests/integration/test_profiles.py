"""The profile registry over gRPC, with a real Redis."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from fslr import (
    AdvisorClient,
    AliasMovedError,
    InvalidRequestError,
    NotFoundError,
    ProfileNotFoundError,
    VersionInUseError,
    VersionNotFoundError,
)
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, profile_service_pb2_grpc
from fslr.advisor.v1 import profile_service_pb2 as pb
from fslr.client.status_errors import service_error
from tests.building import NAMES, content_message, describe_tensors, layout_message


def test_the_same_content_gets_the_same_version(client: AdvisorClient, project: str) -> None:
    first = client.register_profile("gpt", content_message(), project=project)
    again = client.register_profile("gpt", content_message(), project=project)
    other = client.register_profile("gpt", content_message(rate=2.0), project=project)
    assert (first.created, again.created, other.created) == (True, False, True)
    assert first.profile == again.profile
    assert first.profile.name == f"projects/{project}/profiles/gpt@1"
    assert (other.profile.version, other.profile.digest != first.profile.digest) == (2, True)


def test_a_version_is_returned_unchanged(client: AdvisorClient, project: str) -> None:
    content = content_message(labels={"team": "nlp"})
    content.docs = "Use with *warm-up*."
    content.provenance.model = "char GPT"
    client.register_profile("gpt", content, project=project)
    client.register_profile("gpt", content_message(rate=3.0), project=project)
    response = client.get_profile("gpt@1", project=project)
    got = response.profile.content
    assert list(response.versions) == [1, 2]
    assert [list(p.unit_rates) for p in got.points] == [list(p.unit_rates) for p in content.points]
    assert (got.docs, got.provenance.model, dict(got.labels)) == (
        content.docs,
        "char GPT",
        {"team": "nlp"},
    )
    assert [g.role for g in got.layout.groups][1:3] == ["blocks.*.up.weight"] * 2
    assert (got.total_steps, got.policy.max_multiplier) == (21, 1024.0)
    assert client.get_profile("gpt", project=project).profile.version == 2  # the latest


def test_lists_are_ordered_paged_and_filtered(client: AdvisorClient, project: str) -> None:
    for i in range(7):
        labels = {"team": "nlp" if i % 2 else "vision", "size": "small"}
        client.register_profile(f"p{i}", content_message(labels=labels), project=project)
    listed = list(client.list_profiles(project=project))
    assert [p.name.split("/")[-1] for p in listed] == [f"p{i}@1" for i in range(7)]
    assert all(not p.content.points and p.content.base_learning_rate for p in listed)

    def names(label_filter: str) -> list[str]:
        found = client.list_profiles(project=project, label_filter=label_filter)
        return [p.name.split("/")[-1] for p in found]

    assert names("labels.team=nlp") == ["p1@1", "p3@1", "p5@1"]
    assert names("labels.team=nlp AND labels.size=small") == ["p1@1", "p3@1", "p5@1"]
    assert names("labels.team=audio") == []
    endless = " AND ".join(f"labels.k{i}=v" for i in range(65))
    with pytest.raises(InvalidRequestError, match="filter: more than 64 labels"):
        names(endless)
    with pytest.raises(InvalidRequestError, match=r"filter: 'team' is not of the form labels\.KEY"):
        names("team")


def test_labels_are_those_of_the_latest_version(client: AdvisorClient, project: str) -> None:
    def register(rate: float, labels: dict[str, str]) -> None:
        client.register_profile("gpt", content_message(rate=rate, labels=labels), project=project)

    def found(label_filter: str) -> list[int]:
        listed = client.list_profiles(project=project, label_filter=label_filter)
        return [profile.version for profile in listed]

    register(1.0, {"team": "nlp", "state": "draft"})
    register(2.0, {"team": "nlp", "state": "ready = set", "sprache": "größer\n\tä"})
    client.register_profile("other", content_message(labels={"team": "nlp"}), project=project)
    assert found("labels.team=nlp") == [2, 1]
    assert found("labels.state=draft") == []
    assert found("labels.state=ready = set AND labels.team=nlp") == [2]
    assert found("labels.sprache=größer\n\tä AND labels.team=nlp") == [2]
    assert found("labels.sprache=größer") == []
    register(1.0, {"team": "nlp", "state": "draft"})  # exists, so it is not the latest
    assert found("labels.state=draft") == []
    client.delete_profile("gpt@2", project=project)
    assert found("labels.state=draft") == [1]
    assert found("labels.sprache=größer\n\tä") == []
    client.delete_profile("gpt@1", project=project)
    assert found("labels.team=nlp") == [1]
    with pytest.raises(InvalidRequestError, match=r"labels\[a\]: 'x.*y' holds the control"):
        client.register_profile("gpt", content_message(labels={"a": "x\0y"}), project=project)


@pytest.mark.parametrize("seed", range(3))
def test_filters_match_a_search_through_all_profiles(
    client: AdvisorClient, project: str, seed: int
) -> None:
    rng = random.Random(seed)
    terms = [f"labels.{key}={value}" for key in "ab" for value in "xy"]
    for step in range(40):
        name = f"p{rng.randrange(8)}"
        if rng.random() < 0.3:
            with contextlib.suppress(NotFoundError):
                last = client.get_profile(name, project=project).profile.version
                client.delete_profile(f"{name}@{last}", project=project)
        else:
            labels = {key: rng.choice("xy") for key in "ab" if rng.random() < 0.7}
            content = content_message(rate=1.0 + step, labels=labels)
            client.register_profile(name, content, project=project)
        chosen = rng.sample(terms, rng.choice([1, 2]))
        pairs = {term.split("=")[0][-1]: term[-1] for term in chosen}
        if len(pairs) < len(chosen):
            continue  # one label cannot have two values
        listed = list(client.list_profiles(project=project))
        assert [
            p.name for p in client.list_profiles(project=project, label_filter=" AND ".join(chosen))
        ] == [p.name for p in listed if pairs.items() <= dict(p.content.labels).items()]


def test_pages_of_any_size_add_up_to_the_whole_list(client: AdvisorClient, project: str) -> None:
    for i in range(5):
        client.register_profile(f"p{i}", content_message(labels={"k": "v"}), project=project)
    stub = profile_service_pb2_grpc.ProfileServiceStub(client.channel())
    for label_filter in ("", "labels.k=v"):
        for size in (1, 2, 4, 5, 6):
            request = pb.ListProfilesRequest(
                parent=f"projects/{project}", page_size=size, filter=label_filter
            )
            pages = []
            while True:
                page = stub.ListProfiles(request)
                pages.append([p.name.split("/")[-1] for p in page.profiles])
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
            assert [name for p in pages for name in p] == [f"p{i}@1" for i in range(5)]
            assert all(len(p) == size for p in pages[:-1])


@pytest.mark.parametrize("token", ["!", "cDA", "W3A=", "../x", "é"])
def test_a_forged_page_token_is_refused(client: AdvisorClient, project: str, token: str) -> None:
    from fslr.advisor.v1 import profile_service_pb2 as pb
    from fslr.advisor.v1 import profile_service_pb2_grpc

    stub = profile_service_pb2_grpc.ProfileServiceStub(client.channel())
    with pytest.raises(grpc.RpcError, match="not a token of this list") as caught:
        stub.ListProfiles(pb.ListProfilesRequest(parent=f"projects/{project}", page_token=token))
    assert service_error(caught.value, "").reason == "INVALID_VALUE"


def test_an_alias_moves_only_from_the_expected_version(client: AdvisorClient, project: str) -> None:
    for rate in (1.0, 2.0, 3.0):
        client.register_profile("gpt", content_message(rate=rate), project=project)
    assert client.set_alias("gpt@1", "prod", project=project).previous_version == 0
    moved = client.set_alias("gpt@2", "prod", expected_version=1, project=project)
    assert (moved.previous_version, list(moved.profile.aliases)) == (1, ["prod"])
    assert client.get_profile("gpt@prod", project=project).profile.version == 2
    with pytest.raises(
        AliasMovedError, match=r"'prod' names version 2, not 1 as expected; .*again"
    ):
        client.set_alias("gpt@3", "prod", expected_version=1, project=project)
    client.set_alias("gpt@2", "prod", expected_version=2, project=project)  # nothing to do
    assert client.get_profile("gpt", project=project).aliases[0].etag == "2"
    with pytest.raises(AliasMovedError, match=r"names version 2, not none as expected"):
        client.set_alias("gpt@1", "prod", expected_version=0, project=project)


def test_a_deleted_version_is_not_found_and_its_number_is_not_reused(
    client: AdvisorClient, project: str
) -> None:
    for rate in (1.0, 2.0):
        client.register_profile("gpt", content_message(rate=rate), project=project)
    client.set_alias("gpt@2", "prod", project=project)
    with pytest.raises(VersionInUseError, match=r"gpt@2 is named by alias prod; move the alias"):
        client.delete_profile("gpt@2", project=project)
    client.set_alias("gpt@1", "prod", project=project)
    client.delete_profile("gpt@2", project=project)
    with pytest.raises(
        VersionNotFoundError, match=r"no version or alias '2'; existing ones: 1, prod"
    ):
        client.delete_profile("gpt@2", project=project)
    with pytest.raises(ProfileNotFoundError, match=r"did you mean .*/gpt\?"):
        client.delete_profile("gtp@2", project=project)
    with pytest.raises(
        VersionNotFoundError, match=r"no version or alias '2'; existing ones: 1, prod"
    ):
        client.get_profile("gpt@2", project=project)
    assert client.get_profile("gpt", project=project).profile.version == 1
    back = client.register_profile("gpt", content_message(rate=2.0), project=project)
    assert (back.created, back.profile.version) == (True, 3)


def test_a_profile_without_versions_is_not_listed(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    client.delete_profile("gpt@1", project=project)
    assert list(client.list_profiles(project=project)) == []
    with pytest.raises(ProfileNotFoundError, match=r"no profile .*gpt; register it first"):
        client.get_profile("gpt", project=project)
    assert client.register_profile("gpt", content_message(), project=project).profile.version == 2


def test_the_error_for_an_unknown_profile_names_the_nearest_ones(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("char-gpt", content_message(), project=project)
    with pytest.raises(ProfileNotFoundError, match=r"did you mean .*/char-gpt\?") as caught:
        client.get_profile("char-gtp", project=project)
    assert caught.value.reason == "PROFILE_NOT_FOUND"
    assert caught.value.metadata == {"nearest": f"projects/{project}/profiles/char-gpt"}


def test_the_error_for_an_unknown_alias_names_existing_ones(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", content_message(), project=project)
    with pytest.raises(VersionNotFoundError, match=r"no version or alias 'prod'; existing ones: 1"):
        client.get_profile("gpt@prod", project=project)


def test_profiles_are_isolated_by_project(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    with pytest.raises(ProfileNotFoundError, match="there is no profile"):
        client.get_profile("gpt", project=f"{project}-b")
    assert list(client.list_profiles(project=f"{project}-b")) == []


def test_concurrent_registrations_create_each_version_once(
    client: AdvisorClient, project: str
) -> None:
    barrier = threading.Barrier(8)

    def register(i: int) -> tuple[str, int, bool]:
        barrier.wait()
        response = client.register_profile("gpt", content_message(rate=1 + i % 4), project=project)
        return response.profile.digest, response.profile.version, response.created

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(register, range(8)))
    assert sum(created for _, _, created in results) == 4
    assert len({(digest, version) for digest, version, _ in results}) == 4
    assert {version for _, version, _ in results} == {1, 2, 3, 4}


def test_concurrent_moves_of_an_alias_have_one_winner_per_round(
    client: AdvisorClient, project: str
) -> None:
    versions = 6
    for i in range(versions):
        client.register_profile("gpt", content_message(rate=1.0 + i), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    for _ in range(5):
        now = client.get_profile("gpt@prod", project=project).profile.version
        others = [v for v in range(1, versions + 1) if v != now]
        barrier = threading.Barrier(len(others))

        def move(version: int, now: int = now, barrier: threading.Barrier = barrier) -> int | None:
            barrier.wait()
            try:
                client.set_alias(f"gpt@{version}", "prod", expected_version=now, project=project)
            except AliasMovedError:
                return None
            return version

        with ThreadPoolExecutor(len(others)) as pool:
            winners = [v for v in pool.map(move, others) if v is not None]
        assert winners == [client.get_profile("gpt@prod", project=project).profile.version]


def test_a_dry_run_shows_how_a_layout_maps(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    deep = [NAMES[0], *(f"blocks.{i}.up.weight" for i in range(4)), NAMES[-1]]
    response = client.check_layout("gpt", layout_message(deep), project=project)
    assert response.profile == f"projects/{project}/profiles/gpt@1"
    mappings = [(m.group, list(m.sources), m.depth_factor) for m in response.mappings]
    assert mappings[0] == ("embed.weight", ["embed.weight"], 1.0)
    assert mappings[4] == ("blocks.3.up.weight", ["blocks.1.up.weight"], 0.5)
    assert not response.unmatched
    assert not response.refusal
    unmatched = client.check_layout("gpt", layout_message([NAMES[0], "stranger"]), project=project)
    assert list(unmatched.unmatched) == ["stranger"]
    assert "1 of 2 groups has no counterpart" in unmatched.refusal
    assert [(m.group, m.depth_factor) for m in unmatched.mappings] == [
        ("embed.weight", 1.0),
        ("stranger", 0.0),
    ]
    hold = policy_pb2.Policy(unmatched_rule=policy_pb2.UNMATCHED_RULE_HOLD)
    by_progress = policy_pb2.Policy(alignment=policy_pb2.ALIGNMENT_PROGRESS)
    told = client.check_layout("gpt", layout_message(NAMES), by_progress, project=project)
    assert (
        "a run that does not give total_steps is refused: alignment by progress needs the run's "
        in (" ".join(told.warnings))
    )
    known = client.check_layout(
        "gpt", layout_message(NAMES), by_progress, total_steps=10, project=project
    )
    assert not any("total_steps" in warning for warning in known.warnings)
    held = client.check_layout("gpt", layout_message([NAMES[0], "stranger"]), hold, project=project)
    assert (list(held.unmatched), held.refusal) == (["stranger"], "")


def test_a_dry_run_has_the_priors_of_the_optimizer_and_the_policy(
    client: AdvisorClient, project: str
) -> None:
    client.set_policy("team", policy_pb2.Policy(max_multiplier=8.0), project=project)
    content = content_message()
    describe_tensors(content.layout, width=8)
    content.policy_name = f"projects/{project}/policies/team"
    client.register_profile("gpt", content, project=project)
    layout = layout_message()
    describe_tensors(layout, width=32)

    def priors(optimizer: str) -> list[float]:
        checked = client.check_layout("gpt", layout, optimizer=optimizer, project=project)
        assert checked.policy == f"projects/{project}/policies/team@1"
        opening = advisor_service_pb2.RunOpening(
            profile=f"projects/{project}/profiles/gpt", layout=layout, optimizer=optimizer
        )
        assert client.validate_layout(opening) == checked
        return [mapping.prior for mapping in checked.mappings]

    assert priors("") == priors("AdamW") == [0.25] * 4
    assert priors("SGD") == [0.0] * 4
    own = client.check_layout("gpt", layout, policy_pb2.Policy(), project=project)
    assert own.policy == ""
    with pytest.raises(InvalidRequestError, match=r"optimizer: .*control character"):
        client.check_layout("gpt", layout, optimizer="Adam\x1b[31m", project=project)


def test_registering_again_returns_the_aliases(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    again = client.register_profile("gpt", content_message(), project=project)
    assert list(again.profile.aliases) == ["prod"]


def test_a_version_deleted_during_a_read_is_not_found_rather_than_damaged(
    client: AdvisorClient, project: str
) -> None:
    stop = threading.Event()

    def churn() -> None:
        with AdvisorClient(client.address) as other:
            while not stop.is_set():
                version = other.register_profile("gpt", content_message(), project=project)
                other.delete_profile(version.profile.name)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        seen = 0
        for _ in range(400):
            with contextlib.suppress(NotFoundError):
                client.get_profile("gpt", project=project)
                seen += 1
        assert seen > 0
    finally:
        stop.set()
        thread.join()
