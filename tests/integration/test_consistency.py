"""Consistent reads during writes, idempotent retries, and damaged data in Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import redis

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import (
    AdvisorClient,
    AliasMovedError,
    InternalServiceError,
    InvalidRequestError,
    VersionInUseError,
    VersionNotFoundError,
)
from fslr.advisor.v1 import audit_service_pb2, audit_service_pb2_grpc, policy_pb2
from tests.building import content_message


@contextmanager
def repeating(task: object, address: str) -> Iterator[None]:
    """Run the task repeatedly in a thread, with a separate client, until the block ends."""
    stop = threading.Event()

    def run() -> None:
        with AdvisorClient(address) as writer:
            while not stop.is_set():
                task(writer)  # type: ignore[operator]

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_an_alias_and_its_etag_are_read_atomically(
    client: AdvisorClient, server: LocalServer, project: str
) -> None:
    """A writer toggles the alias: odd etags belong to version 1, even ones to version 2."""
    for rate in (1.0, 2.0):
        client.register_profile("gpt", content_message(rate=rate), project=project)
    client.set_alias("gpt@1", "prod", project=project)

    def toggle(writer: AdvisorClient) -> None:
        writer.set_alias("gpt@2", "prod", project=project)
        writer.set_alias("gpt@1", "prod", project=project)

    seen = set()
    with repeating(toggle, server.address):
        for _ in range(400):
            found = client.get_profile("gpt@prod", project=project)
            (alias,) = found.aliases
            assert alias.version == (1 if int(alias.etag) % 2 else 2)
            assert found.profile.version == alias.version
            assert list(found.profile.aliases) == ["prod"]
            seen.add(alias.version)
    assert seen == {1, 2}


def test_an_alias_always_resolves_while_old_versions_are_deleted(
    client: AdvisorClient, server: LocalServer, project: str
) -> None:
    client.register_profile("gpt", content_message(rate=1.0), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    count = 1.0

    def renew(writer: AdvisorClient) -> None:
        nonlocal count
        count += 1
        profile = writer.register_profile(
            "gpt", content_message(rate=count), project=project
        ).profile
        writer.set_alias(f"gpt@{profile.version}", "prod", project=project)
        writer.delete_profile(f"gpt@{profile.version - 1}", project=project)

    with repeating(renew, server.address):
        for _ in range(300):
            client.get_profile("gpt@prod", project=project)
    assert count > 5


def test_writers_on_two_replicas_have_one_winner_per_round(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url) as one,
        LocalServer(None, "--redis-url", store.url) as other,
    ):
        replicas = [AdvisorClient(s.address, deadline_s=60) for s in (one, other) * 10]
        versions: list[int] = []
        for turn in range(5):
            barrier = threading.Barrier(len(replicas))

            def write(i: int, turn: int = turn, barrier: threading.Barrier = barrier) -> bool:
                content = content_message(rate=1.0 + i + 100 * turn)
                barrier.wait()
                version = replicas[i].register_profile("gpt", content).profile.version
                versions.append(version)
                try:
                    replicas[i].set_alias(f"gpt@{version}", "prod", etag=str(turn))
                except AliasMovedError:
                    return False
                return True

            with ThreadPoolExecutor(len(replicas)) as pool:
                assert sum(pool.map(write, range(len(replicas)))) == 1
        assert sorted(versions) == list(range(1, 5 * len(replicas) + 1))
        for writer in replicas:
            writer.close()


def test_registering_never_fails_because_of_a_concurrent_deletion(
    client: AdvisorClient, server: LocalServer, project: str
) -> None:
    def clear(writer: AdvisorClient) -> None:
        try:
            version = writer.get_profile("gpt", project=project).profile.version
            writer.delete_profile(f"gpt@{version}", project=project)
        except (VersionNotFoundError, VersionInUseError):
            pass
        except Exception as error:  # noqa: BLE001 - the whole profile may be gone
            assert "there is no profile" in str(error)  # noqa: PT017

    with repeating(clear, server.address):
        for _ in range(300):
            client.register_profile("gpt", content_message(), project=project)


def test_a_version_deleted_during_a_list_is_not_reported_as_damaged(
    client: AdvisorClient, server: LocalServer, project: str
) -> None:
    """The latest version is deleted and replaced between the two reads of a list."""
    client.register_profile("gpt", content_message(rate=1.0), project=project)
    rate = 1.0

    def renew(writer: AdvisorClient) -> None:
        nonlocal rate
        rate += 1
        version = writer.register_profile(
            "gpt", content_message(rate=rate), project=project
        ).profile
        writer.delete_profile(f"gpt@{version.version}", project=project)

    with repeating(renew, server.address):
        for _ in range(1_000):
            (found,) = client.list_profiles(project=project)
            assert found.group_count == 4
    assert rate > 10


def test_a_retried_move_to_the_latest_version_ignores_later_registrations(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", content_message(rate=1.0), project=project)
    first = client.set_alias("gpt", "prod", project=project, request_id="r")
    client.register_profile("gpt", content_message(rate=2.0), project=project)
    again = client.set_alias("gpt", "prod", project=project, request_id="r")
    assert again == first
    assert again.profile.version == 1
    client.set_alias("gpt@2", "prod", project=project)
    client.delete_profile("gpt@1", project=project)
    assert client.set_alias("gpt", "prod", project=project, request_id="r") == first


def test_retried_deletions_get_the_same_answer(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    for _ in range(2):
        client.delete_alias("gpt", "prod", project=project, request_id="a")
    for _ in range(2):
        client.delete_profile("gpt@1", project=project, request_id="b")
    actions = [event.action for event in client.list_audit_events(project=project)]
    assert actions == ["delete", "delete alias", "set alias", "register"]


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[tuple[AdvisorClient, redis.Redis]]:
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url) as service,
        AdvisorClient(service.address) as client,
        redis.Redis.from_url(store.url) as admin,
    ):
        yield client, admin


def test_lost_content_is_restored_by_registering_it_again(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    digest = client.register_profile("gpt", content_message()).profile.digest
    key = f"fslr:{{default}}:profile:gpt:content:{digest}"
    for junk in (None, b"#junk"):
        if junk is None:
            admin.delete(key)
        else:
            admin.hset(key, "arrays", junk)
        with pytest.raises(InternalServiceError, match=r"damaged; restore .* or register the same"):
            client.get_profile("gpt")
        assert not client.register_profile("gpt", content_message()).created
        assert client.get_profile("gpt").profile.digest == digest
    actions = [event.action for event in client.list_audit_events()]
    assert actions == ["restore", "restore", "register"]
    assert not client.register_profile("gpt", content_message()).created
    assert len(list(client.list_audit_events())) == 3  # there was nothing to restore


INDEX = "fslr:{default}:profile:gpt:index"


def test_no_version_number_is_assigned_twice_after_a_loss(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    for rate in (1.0, 2.0):
        client.register_profile("gpt", content_message(rate=rate))
    client.set_alias("gpt@1", "prod")
    admin.hdel(INDEX, "last")
    assert client.register_profile("gpt", content_message(rate=3.0)).profile.version == 3
    admin.hset(INDEX, "last", "garbage")
    assert client.register_profile("gpt", content_message(rate=4.0)).profile.version == 4
    admin.hset(INDEX, "last", 1)
    assert client.register_profile("gpt", content_message(rate=5.0)).profile.version == 5
    prod = client.get_profile("gpt@prod").profile
    assert (prod.version, prod.content.points[0].unit_rates[0]) == (1, 1.0)


def test_a_damaged_index_is_repaired(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    contents = [content_message(rate=rate) for rate in (1.0, 2.0)]
    for content in contents:
        client.register_profile("gpt", content)
    admin.hdel(INDEX, "v:2")
    admin.delete("fslr:{default}:profiles")
    assert client.register_profile("gpt", contents[1]).profile.version == 2
    assert client.get_profile("gpt@2").profile.version == 2
    assert [profile.version for profile in client.list_profiles()] == [2]
    for junk in (None, "7", "garbage"):
        if junk is None:
            admin.hdel(INDEX, "latest")
        else:
            admin.hset(INDEX, "latest", junk)
        client.register_profile("gpt", contents[0])
        assert client.get_profile("gpt").profile.version == 2
    admin.hset(INDEX, "l:2", "xx")  # damaged labels are treated as missing
    assert client.register_profile("gpt", content_message(rate=3.0)).profile.version == 3
    client.delete_profile("gpt@2")
    aliases = "fslr:{default}:profile:gpt:aliases"
    admin.hset(aliases, "prod", "zz")
    admin.hset(INDEX, "g:prod", "zz")
    client.set_alias("gpt@1", "prod")
    assert client.get_profile("gpt@prod").profile.version == 1
    admin.hset(aliases, "prod", "zz")
    client.delete_alias("gpt", "prod")
    actions = [event.action for event in client.list_audit_events()]
    assert actions.count("register") == 3


def test_lost_labels_are_restored_by_registering_again(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    content = content_message(labels={"team": "nlp"})
    client.register_profile("gpt", content)
    admin.delete("fslr:{default}:labels")
    assert list(client.list_profiles(label_filter="labels.team=nlp")) == []
    client.register_profile("gpt", content)
    assert len(list(client.list_profiles(label_filter="labels.team=nlp"))) == 1


def test_an_unreadable_policy_does_not_hide_other_policies(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    for name in ("a", "b"):
        client.set_policy(name, policy_pb2.Policy(slew_limit=2.0))
    newer = admin.hget("fslr:{default}:policy:a", "v:1")
    assert isinstance(newer, bytes)
    for rules in (b'{"x": 1}', newer[:-1] + b',"a_rule_to_come":1}', b"{"):
        admin.hset("fslr:{default}:policy:a", "v:1", rules)
        listed = list(client.list_policies())
        assert [policy.HasField("policy") for policy in listed] == [False, True]
        with pytest.raises(InternalServiceError, match=r"policies/a@1 cannot be read"):
            client.get_policy("a")
    key = "fslr:{default}:policy:a"
    admin.hset(key, "v:1", newer)
    admin.hset(key, "t:1", "garbage")
    assert len(list(client.list_policies())) == 2
    admin.hdel(key, "t:1")
    assert not client.set_policy("a", policy_pb2.Policy(slew_limit=2.0)).created
    admin.hset(key, "latest", "garbage")
    assert client.set_policy("a", policy_pb2.Policy(slew_limit=3.0)).policy.version == 2
    assert client.get_policy("a").policy.slew_limit == 3.0
    admin.delete(key)
    admin.set(key, "in the way")
    assert [policy.HasField("policy") for policy in client.list_policies()] == [False, True]


def test_a_key_of_the_wrong_type_is_reported_and_nothing_is_written(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    client.register_profile("gpt", content_message())
    admin.set("fslr:{default}:profile:other:index", "in the way")
    admin.set("fslr:{default}:policy:team", "in the way")
    before = admin.keys("*")
    for write in (
        lambda: client.register_profile("other", content_message()),
        lambda: client.set_alias("other", "prod"),
        lambda: client.set_policy("team", policy_pb2.Policy()),
    ):
        with pytest.raises(InternalServiceError, match=r"in the way|holds a string, not a hash"):
            write()
    assert sorted(admin.keys("*")) == sorted(before)
    assert [event.action for event in client.list_audit_events()] == ["register"]


def test_an_unreadable_profile_does_not_hide_other_profiles(
    damaged: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, admin = damaged
    digests = {
        name: client.register_profile(name, content_message(rate=rate)).profile.digest
        for rate, name in enumerate(("a", "b", "c"), start=1)
    }
    key = f"fslr:{{default}}:profile:b:content:{digests['b']}"
    admin.hset(key, "summary", b"{garbage")
    listed = list(client.list_profiles())
    assert [profile.name.split("/")[-1] for profile in listed] == ["a@1", "b@1", "c@1"]
    assert [profile.HasField("content") for profile in listed] == [True, False, True]
    assert [profile.group_count for profile in listed] == [4, 0, 4]
    index = "fslr:{default}:profile:c:index"
    admin.hdel(index, "t:1")
    admin.hset("fslr:{default}:profile:a:aliases", "odd", "no number")
    admin.set("fslr:{default}:profile:d:index", "in the way")
    admin.zadd("fslr:{default}:profiles", {"d": 0})
    names = [profile.name.split("/")[-1] for profile in client.list_profiles()]
    assert names == ["a@1", "b@1", "c@1", "d@0"]
    assert client.get_profile("a").profile.version == 1
    admin.hset(key, "header", b"{garbage")
    client.set_alias("b@1", "prod")  # an alias can move to a damaged version
    with pytest.raises(InternalServiceError, match="is damaged; restore the store"):
        client.get_profile("b@prod")


@pytest.mark.parametrize(
    "token", ["MC0w", "OTk5OTk5OTk5OTk5OTk5OTk5OTktMA==", "MS0xODQ0Njc0NDA3MzcwOTU1MTYxNg==", "!"]
)  # 0-0, 99999999999999999999-0, 1-18446744073709551616
def test_a_forged_page_token_of_the_audit_log_is_refused(
    client: AdvisorClient, project: str, token: str
) -> None:
    stub = audit_service_pb2_grpc.AuditServiceStub(client.channel())
    request = audit_service_pb2.ListAuditEventsRequest(
        parent=f"projects/{project}", page_token=token
    )
    with pytest.raises(grpc.RpcError, match="not a token of this list"):
        stub.ListAuditEvents(request)


@pytest.mark.parametrize(
    ("label_filter", "message"),
    [
        ("labels.a=x and labels.b=y", "write ' AND ' in capitals"),
        ("labels.a=x AND labels.a=y", "labels.a is given two values"),
        ('labels.a="x', "is not of the form labels.KEY=VALUE"),
        ('labels.a="x" labels.b=y', "is not of the form"),
    ],
)
def test_an_invalid_filter_is_refused(
    client: AdvisorClient, project: str, label_filter: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"filter: .*{message}"):
        list(client.list_profiles(project=project, label_filter=label_filter))


def test_filters_find_label_values_with_quotes_and_conjunctions(
    client: AdvisorClient, project: str
) -> None:
    values = ["x AND y", 'say "hi"', "a\\b", "", "x AND labels.b=2", " x "]
    for i, value in enumerate(values):
        client.register_profile(
            f"p{i}", content_message(rate=1.0 + i, labels={"a": value, "b": "1"}), project=project
        )
    for i, value in enumerate(values):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        found = client.list_profiles(
            project=project, label_filter=f'labels.a="{quoted}" AND labels.b=1'
        )
        assert [profile.name.split("/")[-1] for profile in found] == [f"p{i}@1"]
