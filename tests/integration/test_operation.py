"""Operation of the service: readiness, metrics, limits, reflection, and a graceful stop."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from advisor.local.server import LocalServer, LocalServerError
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import AdvisorClient, TooBusyError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually

MEASUREMENT = pb.Measurement(unit_rates=[1.0] * 4)


@contextmanager
def service(*arguments: str) -> Iterator[tuple[LocalServer, AdvisorClient]]:
    with LocalServer(None, *arguments) as running, AdvisorClient(running.address) as client:
        client.register_profile("gpt", content_message())
        yield running, client


def state(address: str, name: str) -> str:
    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=name), timeout=5
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def test_readiness_follows_redis_and_liveness_does_not(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url) as running,
    ):
        cli = Cli(running.address, "default")
        assert state(running.address, "readiness") == "SERVING"
        assert cli.run("health", "--ready").stdout.endswith("SERVING\n")
        os.kill(store.pid, signal.SIGKILL)
        eventually(lambda: state(running.address, "readiness") == "NOT_SERVING")
        assert "NOT_SERVING" in cli.run("health", "--ready", ok=False).stdout
        for name in ("", "liveness", "fslr.advisor.v1.AdvisorService"):
            assert state(running.address, name) == "SERVING"
        assert cli.run("health").stdout.endswith("SERVING\n")
        store.revive()
        eventually(lambda: state(running.address, "readiness") == "SERVING")
        assert "not ready: Redis cannot be used" in running.log()
        assert "ready again" in running.log()


def scraped(log: str) -> dict[str, float]:
    port = re.findall(r"metrics_port=(\d+)", log)[-1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        text = page.read().decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def with_not_found(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics once they count a NOT_FOUND, which happens after the status is sent."""
    return metrics if any('grpc_code="NOT_FOUND"' in name for name in metrics) else {}


def test_calls_answers_and_losses_appear_in_the_metrics() -> None:
    with service("--metrics-port", "0") as (running, client):
        opening = opening_message("projects/default/profiles/gpt")
        for _ in range(3):
            client.recommend_once(opening, MEASUREMENT)
        session = client.open_run(opening)
        for _ in range(5):
            session.recommend(MEASUREMENT)
        with pytest.raises(Exception, match="there is no profile"):
            client.get_profile("nosuch")
        found = eventually(lambda: with_not_found(scraped(running.log())))

        def method(metric: str, name: str, kind: str = "unary", **more: str) -> float:
            service = "AdvisorService" if name.startswith("Recommend") else "ProfileService"
            labels = {
                **more,
                "grpc_method": name,
                "grpc_service": f"fslr.advisor.v1.{service}",
                "grpc_type": kind,
            }
            joined = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
            return found[f"{metric}{{{joined}}}"]

        assert method("grpc_server_started_total", "RecommendLROnce") == 3
        assert method("grpc_server_handled_total", "RecommendLROnce", grpc_code="OK") == 3
        assert method("grpc_server_handled_total", "GetProfile", grpc_code="NOT_FOUND") == 1
        assert method("grpc_server_handling_seconds_count", "RecommendLROnce") == 3
        assert method("grpc_server_msg_received_total", "RecommendLR", "bidi_stream") == 5
        assert method("grpc_server_msg_sent_total", "RecommendLR", "bidi_stream") == 5
        assert method("grpc_server_handling_seconds_count", "RecommendLR", "bidi_stream") == 5
        assert method("grpc_server_handled_total", "GetProfile", grpc_code="INTERNAL") == 0
        assert found['advisor_open_calls{grpc_type="bidi_stream"}'] == 1
        assert found['advisor_answers_total{stale="false"}'] == 8
        assert found['advisor_recommended_groups_total{outcome="matched"}'] == 32
        assert found['advisor_profile_lookups_total{result="miss"}'] == 1
        assert found['advisor_profile_lookups_total{result="hit"}'] == 3
        assert found["advisor_ready"] == 1
        assert found['advisor_redis_seconds_count{command="EVALSHA"}'] > 0
        assert found["advisor_telemetry_lost_total"] == 0
        session.close()
        eventually(lambda: scraped(running.log())[
            'advisor_open_calls{grpc_type="bidi_stream"}'] == 0
        )  # fmt: skip
        eventually(lambda: "stream ended" in running.log())


def test_streams_above_the_limit_are_refused_with_a_remedy() -> None:
    with service("--max-streams", "2") as (_, client):
        opening = opening_message("projects/default/profiles/gpt")
        sessions = [client.open_run(opening) for _ in range(3)]
        for session in sessions[:2]:
            session.recommend(MEASUREMENT)
        with pytest.raises(TooBusyError, match=r"2 streams are in progress.*raise --max-streams"):
            sessions[2].recommend(MEASUREMENT)
        client.recommend_once(opening, MEASUREMENT)  # unary calls have a separate limit
        sessions[0].close()

        def is_accepted() -> bool:
            try:
                sessions[2].recommend(MEASUREMENT)
            except TooBusyError:
                return False
            return True

        assert eventually(is_accepted)
        for session in sessions[1:]:
            session.close()


def test_unary_calls_above_the_limit_are_refused_until_there_is_room_again(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url, "--max-calls", "1") as running,
    ):
        os.kill(store.pid, signal.SIGSTOP)  # so that calls stay open
        outcomes: list[type[Exception] | None] = []

        def call() -> None:
            with AdvisorClient(running.address, deadline_s=8) as caller:
                try:
                    list(caller.list_profiles())
                except Exception as error:  # noqa: BLE001 - checked below
                    outcomes.append(type(error))
                else:
                    outcomes.append(None)

        threads = [threading.Thread(target=call) for _ in range(5)]
        for thread in threads:
            thread.start()
        eventually(lambda: outcomes.count(TooBusyError) >= 1)
        os.kill(store.pid, signal.SIGCONT)
        for thread in threads:
            thread.join()
        assert len(outcomes) == 5
        assert set(outcomes) <= {TooBusyError, UnavailableError, None}
        with AdvisorClient(running.address) as client:
            assert list(client.list_profiles()) == []  # there is room again


def test_an_idle_stream_does_not_delay_the_stop_and_reconnects_to_the_next_service(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with LocalServer(data, "--grace-s", "30") as running:
        port = running.address.rsplit(":", 1)[1]
        client = AdvisorClient(running.address)
        client.register_profile("gpt", content_message())
        session = client.open_run(opening_message("projects/default/profiles/gpt"))
        session.recommend(MEASUREMENT)
        started_s = time.monotonic()
        running.stop()
        assert time.monotonic() - started_s < 10
    with pytest.raises(UnavailableError, match=r"shutting down|no advisor answers"):
        session.recommend(MEASUREMENT)
    with LocalServer(data, "--port", port):

        def answered() -> bool:
            try:
                session.recommend(MEASUREMENT)
            except UnavailableError:
                return False
            return True

        assert eventually(answered, within_s=30)
        session.close()
        client.close()


def test_connections_end_at_their_maximum_age_and_the_run_continues() -> None:
    with service("--max-connection-age-s", "1", "--grace-s", "0.2") as (running, client):
        session = client.open_run(opening_message("projects/default/profiles/gpt"))
        failures = 0

        def ended() -> bool:
            nonlocal failures
            try:
                assert len(session.recommend(MEASUREMENT).multipliers) == 4
            except UnavailableError:
                failures += 1
            return "stream ended" in running.log()

        assert eventually(ended)
        for _ in range(3):
            ended()
        session.close()
        assert failures <= 2  # messages in flight; the client reconnects with the next one


def reflected_services(address: str) -> set[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (response,) = stub.ServerReflectionInfo(iter([request]), timeout=5)
    return {service.name for service in response.list_services_response.service}


def test_reflection_lists_the_services_unless_it_is_disabled(client: AdvisorClient) -> None:
    assert {
        "fslr.advisor.v1.AdvisorService",
        "fslr.advisor.v1.StatusService",
        "grpc.health.v1.Health",
    } <= reflected_services(client.address)
    with (
        LocalServer(None, "--no-reflection") as running,
        pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"),
    ):
        reflected_services(running.address)


def test_the_error_for_a_taken_metrics_port_names_it() -> None:
    with service("--metrics-port", "0") as (running, _):
        port = re.findall(r"metrics_port=(\d+)", running.log())[-1]
        with (
            pytest.raises(
                LocalServerError, match=rf"metrics on 127.0.0.1:{port}: .*--metrics-port"
            ),
            LocalServer(None, "--metrics-port", port),
        ):
            pass


def test_calls_are_spread_over_the_replicas_and_avoid_stopped_ones(tmp_path: Path) -> None:
    """Stopping one replica and killing another between calls causes no errors for callers."""
    opening = opening_message("projects/default/profiles/gpt")
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url, "--metrics-port", "0") as one,
        LocalServer(None, "--redis-url", store.url, "--metrics-port", "0") as other,
        LocalServer(None, "--redis-url", store.url) as third,
        AdvisorClient(f"ipv4:{one.address},{other.address},{third.address}") as client,
    ):
        client.register_profile("gpt", content_message())
        eventually(lambda: _answers(client, opening, one) and _answers(client, opening, other))
        sessions = [client.open_run(opening) for _ in range(6)]
        first = [session.recommend(MEASUREMENT) for session in sessions]
        third.stop()
        again = [session.recommend(MEASUREMENT) for session in sessions]
        os.kill(other.pid, signal.SIGKILL)
        last = [session.recommend(MEASUREMENT) for session in sessions]
        for answers in (first, again, last):
            assert [answer.multipliers for answer in answers] == [first[0].multipliers] * 6
        client.recommend_once(opening, MEASUREMENT)
        for session in sessions:
            session.close()


def _answers(client: AdvisorClient, opening: pb.RunOpening, replica: LocalServer) -> float:
    """Return a replica's number of recommendations, after one more call to any replica."""
    client.recommend_once(opening, MEASUREMENT)
    return scraped(replica.log()).get('advisor_answers_total{stale="false"}', 0)


def test_the_maximum_settings_are_accepted_and_larger_ones_refused() -> None:
    with service("--max-connection-age-s", "2e6", "--max-message-bytes", str(2**29 - 1)):
        pass
    with (
        pytest.raises(LocalServerError, match="less than or equal to 2000000"),
        service("--max-connection-age-s", "inf"),
    ):
        pass
