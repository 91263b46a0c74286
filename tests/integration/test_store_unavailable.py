"""Redis becomes unavailable: cached profiles keep answering, other calls get a clear error."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import AdvisorClient, FslrError, ProfileNotFoundError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_service_pb2, profile_service_pb2_grpc
from tests.building import content_message, opening_message
from tests.waiting import eventually

PROFILE = "projects/default/profiles/gpt"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def service(redis_server: EmbeddedRedis) -> Iterator[LocalServer]:
    with LocalServer(None, "--redis-url", redis_server.url) as running:
        yield running


def ask(client: AdvisorClient, profile: str = PROFILE, run: str = "") -> pb.RecommendLRResponse:
    opening = opening_message(profile, run=run)
    return client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))


def test_cached_profiles_keep_answering_marked_stale(
    redis_server: EmbeddedRedis, service: LocalServer
) -> None:
    run = "projects/default/runs/r"
    with AdvisorClient(service.address) as client:
        client.register_profile("gpt", content_message())
        client.register_profile("never-read", content_message())
        client.register_profile("deleted", content_message(rate=2))
        before = ask(client, run=run)
        ask(client, "projects/default/profiles/deleted")
        client.delete_profile("deleted@1")
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            ask(client, "projects/default/profiles/deleted")
        eventually(lambda: list(client.list_runs()))

        os.kill(redis_server.pid, signal.SIGKILL)
        while_unavailable = ask(client, run=run)
        assert while_unavailable.stale
        assert not before.stale
        while_unavailable.stale = False
        assert while_unavailable == before
        # A deleted profile is not served from the cache either.
        for profile in ("never-read", "deleted"):
            with pytest.raises(
                UnavailableError, match=r"store does not answer .*try again shortly"
            ):
                ask(client, f"projects/default/profiles/{profile}")
        with pytest.raises(UnavailableError, match="store does not answer"):
            client.register_profile("gpt", content_message(rate=3))

        assert redis_server.revive()

        def registered() -> bool:
            try:
                return client.register_profile("gpt", content_message(rate=3)).profile.version == 2
            except FslrError:
                return False

        assert eventually(registered)
        assert not ask(client, run=run).stale
        # The measurement that was not stored is counted as lost.
        eventually(lambda: client.get_run("r").lost_measurements == 1)
        assert eventually(lambda: client.get_run("r").measurements == 2)


def test_the_error_carries_a_retry_delay(redis_server: EmbeddedRedis, service: LocalServer) -> None:
    os.kill(redis_server.pid, signal.SIGKILL)
    with grpc.insecure_channel(service.address) as channel:
        stub = profile_service_pb2_grpc.ProfileServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="store does not answer") as caught:
            stub.GetProfile(profile_service_pb2.GetProfileRequest(name=PROFILE), timeout=10)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(retry) for detail in status.details)
    assert (info.reason, retry.retry_delay.ToSeconds()) == ("STORE_UNAVAILABLE", 1)


def test_a_temporary_refusal_by_redis_is_not_a_defect(
    redis_server: EmbeddedRedis, service: LocalServer
) -> None:
    import redis

    with AdvisorClient(service.address) as client, redis.Redis.from_url(redis_server.url) as admin:
        admin.config_set("maxmemory", "1000")
        with pytest.raises(
            UnavailableError, match=r"the memory of Redis is full.*raise `maxmemory`"
        ):
            client.register_profile("gpt", content_message())
        admin.config_set("maxmemory", "0")
        assert client.register_profile("gpt", content_message()).created


def test_a_run_that_redis_refuses_loses_no_events_of_other_runs(
    redis_server: EmbeddedRedis, service: LocalServer
) -> None:
    import redis

    with AdvisorClient(service.address) as client, redis.Redis.from_url(redis_server.url) as admin:
        client.register_profile("gpt", content_message())
        admin.set("fslr:{default}:run:bad", "not a hash")
        for _ in range(10):
            ask(client, run="projects/default/runs/good")
            ask(client, run="projects/default/runs/bad")
        eventually(lambda: len(list(client.get_run_history("good"))) == 10)
        assert client.get_run("good").lost_measurements == 0
