"""Writes to the registry: idempotent, recorded in the audit log, and safe under races."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import (
    AdvisorClient,
    AliasMovedError,
    InvalidRequestError,
    UnavailableError,
    VersionNotFoundError,
)
from fslr.advisor.v1 import advisor_service_pb2, audit_service_pb2, policy_pb2
from tests.building import content_message, opening_message

WRITERS = 50


def concurrently(
    clients: list[AdvisorClient], task: Callable[[int, AdvisorClient], object]
) -> list[object]:
    """Run the task on all clients at the same time, each in its own thread."""
    barrier = threading.Barrier(len(clients))

    def run(numbered: tuple[int, AdvisorClient]) -> object:
        barrier.wait()
        return task(*numbered)

    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(run, enumerate(clients)))


@pytest.fixture
def writers(server: LocalServer) -> list[AdvisorClient]:
    return [AdvisorClient(server.address, deadline_s=60, actor=f"w{i}") for i in range(WRITERS)]


def events(client: AdvisorClient, project: str) -> list[audit_service_pb2.AuditEvent]:
    return list(client.list_audit_events(project=project))


def test_fifty_writers_of_one_alias_have_one_winner_per_round(
    client: AdvisorClient, writers: list[AdvisorClient], project: str
) -> None:
    """In each round, all writers register a version and move the alias they have read."""
    created: set[int] = set()
    rounds = 4
    for turn in range(rounds):
        aliases = [] if turn == 0 else list(client.get_profile("gpt", project=project).aliases)
        etag = aliases[0].etag if aliases else "0"

        def write(i: int, writer: AdvisorClient, turn: int = turn, etag: str = etag) -> object:
            content = content_message(rate=1.0 + i + WRITERS * turn)
            version = writer.register_profile("gpt", content, project=project).profile.version
            try:
                writer.set_alias(f"gpt@{version}", "prod", etag=etag, project=project)
            except AliasMovedError:
                return version, False
            return version, True

        answers = [answer for answer in concurrently(writers, write) if isinstance(answer, tuple)]
        versions = [version for version, _ in answers]
        winners = [version for version, won in answers if won]
        assert len(winners) == 1
        now = client.get_profile("gpt@prod", project=project)
        assert now.profile.version == winners[0]
        assert now.aliases[0].etag == str(turn + 1)
        assert len(set(versions)) == WRITERS
        assert not created & set(versions)
        created |= set(versions)
    assert created == set(range(1, rounds * WRITERS + 1))
    moves = [event for event in events(client, project) if event.action == "set alias"]
    assert len(moves) == rounds
    for writer in writers:
        writer.close()


def test_fifty_registrations_of_the_same_content_create_one_version(
    writers: list[AdvisorClient], project: str
) -> None:
    def write(_: int, writer: AdvisorClient) -> object:
        response = writer.register_profile("gpt", content_message(), project=project)
        return response.profile.version, response.created

    answers = concurrently(writers, write)
    assert sorted(map(str, answers)) == ["(1, False)"] * (WRITERS - 1) + ["(1, True)"]
    for writer in writers:
        writer.close()


def test_an_alias_that_was_moved_and_moved_back_counts_as_moved(
    client: AdvisorClient, project: str
) -> None:
    for rate in (1.0, 2.0, 3.0):
        client.register_profile("gpt", content_message(rate=rate), project=project)
    etag = client.set_alias("gpt@1", "prod", project=project).alias.etag
    client.set_alias("gpt@2", "prod", project=project)
    client.set_alias("gpt@1", "prod", project=project)
    with pytest.raises(
        AliasMovedError, match=r"'prod' names version 1, and moved since it was read"
    ):
        client.set_alias("gpt@3", "prod", etag=etag, project=project)
    with pytest.raises(
        InvalidRequestError, match=r"etag: 'x' is not an etag of this service; read"
    ):
        client.set_alias("gpt@3", "prod", etag="x", project=project)


def test_an_alias_can_be_deleted(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    etag = client.set_alias("gpt@1", "prod", project=project).alias.etag
    with pytest.raises(AliasMovedError, match="moved since it was read"):
        client.delete_alias("gpt", "prod", etag="0", project=project)
    client.delete_alias("gpt", "prod", etag=etag, project=project)
    with pytest.raises(VersionNotFoundError, match=r"no version or alias 'prod'; existing ones: 1"):
        client.delete_alias("gpt", "prod", project=project)
    assert list(client.get_profile("gpt", project=project).aliases) == []
    again = client.set_alias("gpt@1", "prod", project=project).alias
    assert int(again.etag) > int(etag) + 1  # the count never restarts
    client.delete_alias("gpt", "prod", project=project)
    client.delete_profile("gpt@1", project=project)


def test_a_retried_request_gets_the_same_answer(client: AdvisorClient, project: str) -> None:
    first = client.register_profile("gpt", content_message(), project=project, request_id="r1")
    again = client.register_profile("gpt", content_message(), project=project, request_id="r1")
    assert (first.created, again.created) == (True, True)
    assert again.profile.version == first.profile.version
    client.register_profile("gpt", content_message(rate=2.0), project=project)
    moved = client.set_alias("gpt@1", "prod", etag="0", project=project, request_id="r2")
    same = client.set_alias("gpt@1", "prod", etag="0", project=project, request_id="r2")
    assert moved == same
    client.set_alias("gpt@2", "prod", project=project)
    # A late retry of the first move neither fails nor moves the alias back.
    client.set_alias("gpt@1", "prod", etag="0", project=project, request_id="r2")
    assert client.get_profile("gpt@prod", project=project).profile.version == 2


def test_a_request_identifier_belongs_to_one_request(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project, request_id="mine")
    with pytest.raises(InvalidRequestError, match="request_id was used for a different request"):
        client.register_profile("gpt", content_message(rate=2), project=project, request_id="mine")
    with pytest.raises(InvalidRequestError, match="request_id: 257 characters, but at most 256"):
        client.register_profile("gpt", content_message(), project=project, request_id="x" * 257)


def test_every_write_is_recorded_in_the_audit_log(server: LocalServer, project: str) -> None:
    with AdvisorClient(server.address, actor="Zoë") as client:
        digest = client.register_profile("gpt", content_message(), project=project).profile.digest
        client.register_profile("gpt", content_message(), project=project)  # writes nothing
        client.set_alias("gpt@1", "prod", project=project)
        client.delete_alias("gpt", "prod", project=project)
        client.delete_profile("gpt@1", project=project)
        written = events(client, project)
    assert [(event.action, event.name, event.detail) for event in written] == [
        ("delete", "profiles/gpt@1", digest),
        ("delete alias", "profiles/gpt@prod", "1 -> "),
        ("set alias", "profiles/gpt@prod", "0 -> 1"),
        ("register", "profiles/gpt@1", digest),
    ]
    assert {event.actor for event in written} == {"Zoë"}
    assert all(event.peer.startswith("ipv4:127.0.0.1:") for event in written)
    assert all(event.request_id for event in written)
    assert all(event.time.ToSeconds() > 1_700_000_000 for event in written)


def test_the_audit_log_is_read_in_pages(client: AdvisorClient, project: str) -> None:
    for rate in range(1, 131):
        client.register_profile("gpt", content_message(rate=rate), project=project)
    written = events(client, project)  # the default page holds 100
    assert [event.name for event in written] == [f"profiles/gpt@{v}" for v in range(130, 0, -1)]


def test_writes_that_cannot_be_recorded_are_refused_and_recommendations_continue(
    tmp_path: Path,
) -> None:
    import redis

    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url) as service,
        AdvisorClient(service.address) as client,
        redis.Redis.from_url(store.url) as admin,
    ):
        client.register_profile("gpt", content_message())
        client.register_profile("other", content_message(rate=3.0))
        client.set_alias("gpt@1", "kept")
        admin.rename("fslr:{default}:audit", "kept")
        admin.set("fslr:{default}:audit", "in the way")
        message = r"audit event cannot be recorded \(.*WRONGTYPE.*\), so nothing was changed"
        for write in (
            lambda: client.register_profile("gpt", content_message(rate=2)),
            lambda: client.set_alias("gpt@1", "prod"),
            lambda: client.delete_profile("other@1"),
            lambda: client.delete_alias("gpt", "kept"),
            lambda: client.set_policy("team", policy_pb2.Policy(slew_limit=2.0)),
        ):
            with pytest.raises(UnavailableError, match=message):
                write()
        found = client.get_profile("gpt")
        assert (list(found.versions), [a.name for a in found.aliases]) == ([1], ["kept"])
        assert list(client.list_policies()) == []
        measurement = advisor_service_pb2.Measurement(unit_rates=[1, 1, 1, 1])
        opening = opening_message("projects/default/profiles/gpt")
        assert len(client.recommend_once(opening, measurement).multipliers) == 4
        admin.rename("kept", "fslr:{default}:audit")
        assert client.register_profile("gpt", content_message(rate=2)).profile.version == 2
        assert len(list(client.list_audit_events())) == 4


def test_a_profile_without_complete_provenance_is_refused(
    client: AdvisorClient, project: str
) -> None:
    content = content_message()
    content.provenance.ClearField("commit")
    content.provenance.width = 0
    with pytest.raises(
        InvalidRequestError, match=r"content\.provenance: width, commit missing; a registered"
    ):
        client.register_profile("gpt", content, project=project)
