"""Data loss in each failure of docs/explanation/failures.md that no other test covers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient, ProfileNotFoundError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import content_message, opening_message
from tests.redis_servers import RedisServer
from tests.waiting import eventually

PROFILE, RUN = "projects/default/profiles/gpt", "projects/default/runs/r"
MEASUREMENT = pb.Measurement(unit_rates=[1, 1, 1, 1])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def service(store: RedisServer) -> Iterator[LocalServer]:
    with LocalServer(None, "--redis-url", store.url) as running:
        yield running


def stored(client: AdvisorClient) -> int:
    return sum(run.measurements for run in client.list_runs())


def test_open_streams_get_answers_without_redis_and_their_losses_are_counted(
    store: RedisServer, service: LocalServer
) -> None:
    with AdvisorClient(service.address) as client:
        client.register_profile("gpt", content_message())
        session = client.open_run(opening_message(PROFILE, run=RUN))
        session.recommend(MEASUREMENT)
        eventually(lambda: stored(client) == 1)
        store.kill()
        for _ in range(3):
            assert not session.recommend(
                MEASUREMENT
            ).stale  # the profile was resolved when the stream was opened
        eventually(lambda: "telemetry is being lost" in service.log())
        eventually(lambda: "not ready" in service.log())
        store.start()
        eventually(lambda: "ready again" in service.log())

        def losses_are_stored() -> bool:
            session.recommend(MEASUREMENT)
            return client.get_run("r").lost_measurements == 3

        assert eventually(losses_are_stored)


def test_a_replica_does_not_start_while_redis_is_unavailable(store: RedisServer) -> None:
    store.kill()
    with (
        pytest.raises(Exception, match=r"the Redis at redis://.* cannot be used"),
        LocalServer(None, "--redis-url", store.url),
    ):
        pass


def test_events_queued_in_a_killed_service_are_lost_and_not_counted(store: RedisServer) -> None:
    count = 20
    with (
        LocalServer(None, "--redis-url", store.url) as first,
        AdvisorClient(first.address) as client,
    ):
        client.register_profile("gpt", content_message())
        session = client.open_run(opening_message(PROFILE, run=RUN))
        session.recommend(MEASUREMENT)
        eventually(lambda: stored(client) == 1)
        store.freeze()
        for _ in range(count):
            session.recommend(MEASUREMENT)
        os.kill(first.pid, signal.SIGKILL)
        store.thaw()
    with (
        LocalServer(None, "--redis-url", store.url) as second,
        AdvisorClient(second.address) as client,
    ):
        assert client.get_profile("gpt").profile.version == 1
        # At most the batch that was being sent when Redis froze is stored.
        assert stored(client) < 1 + count
        assert client.get_run("r").lost_measurements == 0


def test_a_full_redis_serves_reads_and_refuses_writes(
    store: RedisServer, service: LocalServer
) -> None:
    with AdvisorClient(service.address) as client, store.client() as admin:
        client.register_profile("gpt", content_message())
        admin.config_set("maxmemory", "1000")
        opening = opening_message(PROFILE, run=RUN)
        assert not client.recommend_once(opening, MEASUREMENT).stale  # a first read still works
        with pytest.raises(UnavailableError, match="maxmemory"):
            client.set_alias("gpt@1", "prod")
        eventually(lambda: "telemetry refused by the store" in service.log())
        admin.config_set("maxmemory", "0")
        client.recommend_once(opening, MEASUREMENT)
        assert eventually(lambda: stored(client) == 1)
        assert client.get_run("r").lost_measurements == 1


def test_flushed_profiles_are_not_found_but_open_streams_keep_them(
    store: RedisServer, service: LocalServer
) -> None:
    with AdvisorClient(service.address) as client, store.client() as admin:
        client.register_profile("gpt", content_message(rate=1))
        client.register_profile("gpt", content_message(rate=2))
        session = client.open_run(opening_message(PROFILE))
        before = session.recommend(MEASUREMENT)
        admin.flushall()
        assert session.recommend(MEASUREMENT) == before
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            client.recommend_once(opening_message(PROFILE), MEASUREMENT)
        # The content gets version 1, which belonged to different content before.
        again = client.register_profile("gpt", content_message(rate=2))
        assert again.profile.name == f"{PROFILE}@1"
        answer = client.recommend_once(opening_message(f"{PROFILE}@1"), MEASUREMENT)
        assert list(answer.multipliers) == list(before.multipliers)


def test_acknowledged_writes_survive_a_kill_of_redis_with_everysec(tmp_path: Path) -> None:
    """Redis writes before it answers and flushes later: only a machine crash loses data."""
    with (
        RedisServer(tmp_path, "--appendfsync", "everysec") as store,
        LocalServer(None, "--redis-url", store.url) as service,
        AdvisorClient(service.address) as client,
    ):
        for rate in range(1, 21):
            client.register_profile("gpt", content_message(rate=rate))
        store.kill()
        store.start()
        assert _version(client) == 20


def _version(client: AdvisorClient) -> int:
    def found() -> int:
        try:
            return client.get_profile("gpt").profile.version
        except UnavailableError:
            return 0

    return eventually(found)
