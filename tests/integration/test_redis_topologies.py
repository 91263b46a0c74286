"""The service over Sentinel and Cluster: the same answers, failovers and failed nodes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import grpc
import pytest
import redis

from advisor.errors import StoreUnavailableError
from advisor.local.server import LocalServer
from advisor.registry.audit import AuditOrigin
from advisor.registry.resource_names import ProfileName, RunName
from advisor.registry.runs import EventToStore, RecordResult
from advisor.store.profiles import ProfileStore
from advisor.store.redis.connection import connect
from advisor.store.runs import RunStore
from advisor.store.times import to_ms
from advisor.wire.profiles import content_from_proto
from fslr import AdvisorClient, FslrError, RunNotFoundError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_service_pb2, profile_service_pb2_grpc
from tests.all_operations import check_all_operations, is_stored
from tests.building import content_message, opening_message
from tests.redis_servers import RedisServer
from tests.redis_topologies import RedisCluster, SentinelTrio
from tests.waiting import eventually

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelTrio]:
    with SentinelTrio(tmp_path_factory.mktemp("trio")) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def serving(url: str, *arguments: str) -> LocalServer:
    timeout = ("--redis-timeout-s", str(TIMEOUT_S))
    return LocalServer(None, "--redis-url", url, *timeout, *arguments)


@pytest.fixture(scope="module")
def over_sentinel(trio: SentinelTrio) -> Iterator[LocalServer]:
    with serving(trio.url, "--redis-wait-replicas", "1") as running:
        yield running


@pytest.fixture(scope="module")
def over_cluster(cluster: RedisCluster) -> Iterator[LocalServer]:
    with serving(cluster.url, "--metrics-port", "0") as running:
        yield running


def succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (FslrError, grpc.RpcError):
        return False
    return True


class Writer:
    """Registers new versions of a profile in a thread until it is stopped."""

    def __init__(self, address: str, project: str) -> None:
        self.acknowledged: dict[int, str] = {}
        self._address, self._project = address, project
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        rate = 1.0
        with AdvisorClient(self._address, deadline_s=3) as client:
            while not self._stop.is_set():
                rate += 1
                try:
                    stored = client.register_profile(
                        "gpt", content_message(rate=rate), project=self._project
                    ).profile
                except FslrError:
                    continue
                assert stored.version not in self.acknowledged
                self.acknowledged[stored.version] = stored.digest

    def check(self, client: AdvisorClient) -> None:
        """Check that every acknowledged version can be read."""
        for version, digest in self.acknowledged.items():
            found = client.get_profile(f"gpt@{version}", project=self._project).profile
            assert found.digest == digest


def test_all_operations_work_over_sentinel(over_sentinel: LocalServer) -> None:
    with AdvisorClient(over_sentinel.address) as client:
        check_all_operations(client, "default")


def test_all_operations_work_over_a_cluster(
    cluster: RedisCluster, over_cluster: LocalServer
) -> None:
    with AdvisorClient(over_cluster.address) as client:
        for project in cluster.projects():
            check_all_operations(client, project)


def test_the_metrics_name_commands_and_batches_on_every_topology(
    cluster: RedisCluster, over_cluster: LocalServer
) -> None:
    project, *_ = cluster.projects("metered")
    (port,) = re.findall(r"metrics_port=(\d+)", over_cluster.log())

    def counted(command: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        name = f'advisor_redis_seconds_count{{command="{command}"}}'
        return sum(float(n.split()[-1]) for n in text.splitlines() if n.startswith(name))

    before = {command: counted(command) for command in ("EVALSHA", "pipeline", "CLUSTER INFO")}
    opening = opening_message(f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/r")
    with AdvisorClient(over_cluster.address) as client:
        client.register_profile("gpt", content_message(), project=project)
        client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))
        assert eventually(lambda: is_stored(client, project, "r"))
    for command, count in before.items():
        assert eventually(lambda c=command, n=count: counted(c) > n), command  # type: ignore[misc]


def cut_off_service(server: RedisServer) -> None:
    """Close the service's connections, which have no name, unlike those of Sentinels."""
    with server.client() as admin:
        own_id = admin.client_id()
        for other in admin.client_list(_type="normal"):
            if not other["name"] and int(other["id"]) != own_id:
                admin.client_kill_filter(_id=other["id"])


def test_a_write_without_a_replica_is_not_acknowledged_and_its_retry_is_the_same_write(
    trio: SentinelTrio, over_sentinel: LocalServer
) -> None:
    (replica,) = trio.replicas
    request = profile_service_pb2.RegisterProfileRequest(
        name="projects/waiting/profiles/gpt", content=content_message(rate=2), request_id="once"
    )
    once = [("grpc.enable_retries", 0)]
    with (
        AdvisorClient(over_sentinel.address) as client,
        grpc.insecure_channel(over_sentinel.address, options=once) as channel,
    ):
        client.register_profile("gpt", content_message(), project="waiting")
        stub = profile_service_pb2_grpc.ProfileServiceStub(channel)
        replica.freeze()
        try:
            # The retries change nothing, but must not be acknowledged either, on any connection.
            for _ in range(3):
                cut_off_service(trio.primary)
                with pytest.raises(grpc.RpcError, match="0 of 1 replicas have the write"):
                    stub.RegisterProfile(request)
        finally:
            replica.thaw()
        assert eventually(lambda: succeeds(lambda: stub.RegisterProfile(request)))
        assert stub.RegisterProfile(request).profile.version == 2
        assert len(list(client.list_audit_events(project="waiting"))) == 2


def test_a_write_to_a_replica_raises_the_error_that_makes_the_client_find_the_primary(
    trio: SentinelTrio,
) -> None:
    (replica,) = trio.replicas
    name, content = ProfileName("replica", "gpt"), content_from_proto(content_message())
    origin = AuditOrigin(datetime.now(UTC), "a test", "", "once")

    async def register() -> None:
        async with connect(replica.url, timeout_s=1, retries=0) as client:
            await ProfileStore(client).register(name, content, origin)

    with pytest.raises(StoreUnavailableError, match="read only replica") as caught:
        asyncio.run(register())
    assert isinstance(caught.value.__cause__, redis.exceptions.ReadOnlyError)


def test_acknowledged_writes_survive_a_failover(tmp_path: Path) -> None:
    with (
        SentinelTrio(tmp_path, replicas=2) as trio,
        serving(trio.url, "--redis-wait-replicas", "1") as service,
        AdvisorClient(service.address) as client,
    ):
        with Writer(service.address, "default") as writer:
            eventually(lambda: len(writer.acknowledged) >= 20)
            old = trio.primary
            old.kill()
            before = len(writer.acknowledged)
            trio.await_failover(old)
            eventually(lambda: len(writer.acknowledged) >= before + 20, within_s=15)
        writer.check(client)
        opening = opening_message("projects/default/profiles/gpt", run="projects/default/runs/r")
        client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))
        assert eventually(lambda: is_stored(client, "default", "r"))
        old.start()  # comes back as a replica
        assert eventually(lambda: old in trio.replicas)
        writer.check(client)


async def record(url: str, projects: list[str]) -> tuple[list[RecordResult], dict[str, list[int]]]:
    """Store three events of a run of each project in one batch, and read what is stored."""
    runs = {project: RunName(project, "batch") for project in projects}
    now_ms = to_ms(datetime.now(UTC))
    events = [
        ([EventToStore(run, b"opening", bytes([step]), step, now_ms) for step in range(3)], 0)
        for run in runs.values()
    ]
    steps = {}
    async with connect(url, timeout_s=TIMEOUT_S, retries=0) as client:
        store = RunStore(client)
        stored = await store.record(events)
        for project, run in runs.items():
            with contextlib.suppress(StoreUnavailableError):
                history = await store.history(run, after="", size=10)
                steps[project] = [event.event[0] for event in history]
    return stored, steps


def test_a_failed_cluster_node_affects_only_its_own_projects(
    cluster: RedisCluster, over_cluster: LocalServer
) -> None:
    failed, *others = cluster.projects("dies")
    with AdvisorClient(over_cluster.address, deadline_s=3) as client:
        for project in (failed, *others):
            client.register_profile("gpt", content_message(), project=project)
        node = cluster.primary_of(failed)
        node.kill()
        try:
            for _ in range(3):
                for project in others:
                    started = time.monotonic()
                    client.register_profile("gpt", content_message(rate=2), project=project)
                    assert time.monotonic() - started < TIMEOUT_S
                with pytest.raises(UnavailableError, match="store does not answer"):
                    client.get_profile("gpt", project=failed)
            # One batch of telemetry for all nodes: the available nodes store their part.
            stored, steps = asyncio.run(record(cluster.url, [failed, *others]))
            assert stored == [RecordResult.REFUSED, RecordResult.STORED, RecordResult.STORED]
            assert steps == {project: [0, 1, 2] for project in others}
        finally:
            node.start()
        cluster.await_all_slots()
        assert eventually(lambda: succeeds(lambda: client.get_profile("gpt", project=failed)))
        again = client.register_profile("gpt", content_message(), project=failed)
        assert again.profile.version == 1


def has_everything(replica: RedisServer, primary: RedisServer) -> bool:
    """Return whether a replica has received all writes of its primary."""
    with replica.client() as follower, primary.client() as leader:
        written = leader.info("replication")["master_repl_offset"]
        received = follower.info("replication")["slave_repl_offset"]
    return bool(received >= written)


def test_a_failover_in_a_cluster_loses_nothing_and_telemetry_finds_the_new_primary(
    tmp_path: Path,
) -> None:
    with (
        RedisCluster(tmp_path, replicas=1) as cluster,
        serving(cluster.url) as service,
        AdvisorClient(service.address) as client,
    ):
        project, *_ = cluster.projects()
        opening = opening_message(
            f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/r"
        )

        def measure() -> None:
            client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))

        client.register_profile("gpt", content_message(rate=0.5), project=project)
        measure()
        eventually(lambda: is_stored(client, project, "r"))
        primary, replica = cluster.primary_of(project), cluster.servers[3]
        eventually(lambda: has_everything(replica, primary))
        primary.kill()

        def measured() -> bool:
            measure()  # always answered from the cache
            with replica.client() as admin, contextlib.suppress(redis.RedisError):
                # Read directly: a read through the service would also make it look for the node.
                key = f"fslr:{{{project}}}:run:r"
                return int(admin.hget(key, "measurements") or 0) >= 2
            return False

        def registered() -> bool:
            return succeeds(
                lambda: client.register_profile("gpt", content_message(rate=2), project=project)
            )

        assert eventually(measured, within_s=20)
        assert eventually(registered)
        assert client.get_profile("gpt@2", project=project).profile.version == 2


def test_moving_slots_loses_no_writes_and_counts_lost_telemetry(
    cluster: RedisCluster, over_cluster: LocalServer
) -> None:
    project, *_ = cluster.projects("moves")
    source, target = cluster.servers[0], cluster.servers[1]
    opening = opening_message(f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/r")
    with AdvisorClient(over_cluster.address) as client:
        client.register_profile("gpt", content_message(), project=project)
        client.set_alias("gpt@1", "best", project=project)
        session = client.open_run(opening)
        session.recommend(pb.Measurement(step=0, unit_rates=[1, 1, 1, 1]))
        sent = [0]
        for step in cluster.move_slot(project, source, target):
            session.recommend(pb.Measurement(step=step, unit_rates=[1, 1, 1, 1]))
            sent.append(step)
            time.sleep(0.01)
        for step in range(1000, 1003):
            session.recommend(pb.Measurement(step=step, unit_rates=[1, 1, 1, 1]))
            sent.append(step)
        session.close()
        again = client.register_profile("gpt", content_message(rate=2), project=project)
        assert again.profile.version == 2
        assert client.get_profile("gpt@best", project=project).profile.version == 1

        def steps() -> list[int]:
            try:
                return [e.measurement.step for e in client.get_run_history("r", project=project)]
            except RunNotFoundError:
                return []

        stored = eventually(lambda: steps() if steps()[-1:] == [1002] else None)
        assert stored is not None
        assert stored == [step for step in sent if step in stored]  # in order, without duplicates
        # A migrating slot accepts no new keys from scripts; lost events are counted.
        run = client.get_run("r", project=project)
        assert run.measurements == len(stored)
        assert run.lost_measurements == len(sent) - len(stored)


@pytest.mark.parametrize("over", ["one", "sentinel", "cluster"])
def test_no_caller_waits_longer_than_twice_the_timeout_while_redis_is_frozen(
    over: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if over == "one":
        with RedisServer(tmp_path) as one, serving(one.url) as service:
            check_bound(service, [one], ["bound"])
        return
    topology = request.getfixturevalue("trio" if over == "sentinel" else over)
    service = request.getfixturevalue(f"over_{over}")
    members = [*topology.servers, *getattr(topology, "sentinels", ())]
    projects = topology.projects("bound") if over == "cluster" else ["bound"]
    check_bound(service, members, projects)


def check_bound(service: LocalServer, members: list[RedisServer], projects: list[str]) -> None:
    """Freeze all servers, and check how long concurrent callers wait for an error."""
    once = [("grpc.enable_retries", 0)]
    with grpc.insecure_channel(service.address, options=once) as channel:
        stub = profile_service_pb2_grpc.ProfileServiceStub(channel)
        for member in members:
            member.freeze()
        try:
            for _ in range(2 if len(projects) > 1 else 1):  # then without connections
                started = time.monotonic()
                calls = [
                    stub.GetProfile.future(
                        profile_service_pb2.GetProfileRequest(name=f"projects/{p}/profiles/gpt")
                    )
                    for p in projects * 5
                ]
                assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
                assert time.monotonic() - started < 2 * TIMEOUT_S + 0.7
        finally:
            for member in members:
                member.thaw()

    def answers() -> bool:
        with AdvisorClient(service.address, deadline_s=2) as client:
            return succeeds(lambda: [list(client.list_profiles(project=p)) for p in projects])

    assert eventually(answers, within_s=20)
