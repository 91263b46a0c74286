"""Access to Redis: users with minimal rights, TLS, and passwords that are never printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from advisor.local.server import LocalServer, LocalServerError
from fslr import AdvisorClient, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, run_service_pb2, run_service_pb2_grpc
from tests.all_operations import check_all_operations, is_stored
from tests.building import opening_message
from tests.certificates import Authority
from tests.proxy import TlsProxy
from tests.redis_servers import RedisServer
from tests.redis_topologies import RedisCluster, SentinelTrio
from tests.waiting import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "redis.md").read_text("utf-8")
SECRET = "s3cr3t-of-mine"


def rules(user: str) -> list[str]:
    """Return the documented ACL rules of a user, with the password filled in."""
    found = re.search(rf"^ACL SETUSER {user} ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    assert found is not None
    return found[1].replace("\\\n", " ").replace(">PASSWORD", f">{SECRET}").split()


def refusals(client: redis.Redis) -> list[str]:
    """Return the commands and keys that Redis refused to users."""
    return [str(entry["object"]) for entry in client.acl_log()]


def test_the_documented_rights_are_sufficient_and_each_is_needed(tmp_path: Path) -> None:
    database = {"db": 1}
    with RedisServer(tmp_path, client_options=database) as server, server.client() as admin:
        admin.execute_command("ACL SETUSER", "advisor", *rules("advisor"))
        url = f"redis://advisor:{SECRET}@127.0.0.1:{server.port}/1"
        with (
            LocalServer(None, "--redis-url", url, "--redis-wait-replicas", "0") as service,
            AdvisorClient(service.address) as client,
        ):
            admin.config_resetstat()  # the service has called every command once at its start
            check_all_operations(client, "default")
            _page_through_runs(client, admin)
        assert refusals(admin) == []
        used = _used(admin)
        for right in rules("advisor"):
            if right.startswith("+"):
                command = right.removeprefix("+")
                assert command in used | _ELSEWHERE, f"{right} is not used"


# Used with a Cluster, with `redis_wait_replicas`, or for each new connection.
_ELSEWHERE = {"cluster|slots", "cluster|info", "asking", "wait", "client|setinfo", "select"}


def _page_through_runs(client: AdvisorClient, admin: redis.Redis) -> None:
    """Read pages of runs; some runs have ended, and the run of a page token is removed."""
    for run in ("two", "three"):
        name = f"projects/default/runs/{run}"
        opening = opening_message("projects/default/profiles/gpt", run=name)
        client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))
        eventually(lambda run=run: is_stored(client, "default", run))  # type: ignore[misc]
    admin.zadd("fslr:{default}:runs", {"ended": 1})
    stub = run_service_pb2_grpc.RunServiceStub(client.channel())
    request = run_service_pb2.ListRunsRequest(parent="projects/default", page_size=1)
    request.page_token = stub.ListRuns(request).next_page_token
    assert len(stub.ListRuns(request).runs) == 1
    admin.zrem("fslr:{default}:runs", "three")
    assert len(stub.ListRuns(request).runs) == 1
    assert len(list(client.list_runs())) == 2


def _used(admin: redis.Redis) -> set[str]:
    stats = admin.info("commandstats")
    return {str(name).removeprefix("cmdstat_") for name in stats}


def test_the_error_for_a_refused_command_names_it_and_the_page_about_rights(tmp_path: Path) -> None:
    named = r"commands? .*'hget' .*Rights in docs/how-to/redis.md"
    with RedisServer(tmp_path) as server, server.client() as admin:
        admin.execute_command("ACL SETUSER", "advisor", *rules("advisor"))
        url = f"redis://advisor:{SECRET}@127.0.0.1:{server.port}"
        with (
            LocalServer(None, "--redis-url", url) as service,
            AdvisorClient(service.address, deadline_s=2) as client,
        ):
            admin.execute_command("ACL SETUSER", "advisor", "-hget")
            with pytest.raises(UnavailableError, match=named):
                client.get_policy("team")  # sent as a command
            with pytest.raises(UnavailableError, match=named):
                client.set_policy("team", policy_pb2.Policy())  # called by a script


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_without_rights_fails_with_a_remedy(tmp_path: Path, workers: int) -> None:
    with RedisServer(tmp_path) as server, server.client() as admin:
        admin.execute_command("ACL SETUSER", "advisor", *rules("advisor"), "-ping")
        url = f"redis://advisor:{SECRET}@127.0.0.1:{server.port}"
        arguments = ("--redis-url", url, "--workers", str(workers))
        with pytest.raises(LocalServerError, match="cannot be used") as caught:
            LocalServer(None, *arguments).__enter__()
    message = " ".join(str(caught.value).split())
    assert "'ping' command" in message
    assert "see Rights in docs/how-to/redis.md" in message
    assert "Traceback" not in message


def test_the_documented_rights_are_sufficient_over_sentinel(tmp_path: Path) -> None:
    with SentinelTrio(tmp_path) as trio:
        for server in trio.servers:
            with server.client() as admin:
                admin.execute_command("ACL SETUSER", "advisor", *rules("advisor"))
        for sentinel in trio.sentinels:
            with sentinel.client() as admin:
                admin.execute_command("ACL SETUSER", "asker", *rules("asker"))
        url = trio.url.replace("://", f"://advisor:{SECRET}@") + (
            f"?sentinel_username=asker&sentinel_password={SECRET}"
        )
        with (
            LocalServer(None, "--redis-url", url, "--redis-wait-replicas", "1") as service,
            AdvisorClient(service.address) as client,
        ):
            check_all_operations(client, "default")
        for member in (*trio.servers, *trio.sentinels):
            with member.client() as admin:
                assert refusals(admin) == []


def test_the_documented_rights_are_sufficient_over_a_cluster(tmp_path: Path) -> None:
    with RedisCluster(tmp_path) as cluster:
        for server in cluster.servers:
            with server.client() as admin:
                admin.execute_command("ACL SETUSER", "advisor", *rules("advisor"))
        url = cluster.url.replace("://", f"://advisor:{SECRET}@")
        with (
            LocalServer(None, "--redis-url", url) as service,
            AdvisorClient(service.address) as client,
        ):
            for project in cluster.projects():
                check_all_operations(client, project)
        for server in cluster.servers:
            with server.client() as admin:
                assert refusals(admin) == []


def test_keys_outside_the_prefix_are_refused(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, server.client() as admin:
        admin.execute_command("ACL SETUSER", "advisor", *rules("advisor"))
        with (
            redis.Redis(port=server.port, username="advisor", password=SECRET) as limited,
            pytest.raises(redis.exceptions.NoPermissionError, match="key"),
        ):
            limited.eval("return redis.call('HGET', KEYS[1], 'f')", 1, "other")


def test_errors_about_redis_show_no_password(tmp_path: Path) -> None:
    options = {"password": "different"}
    with RedisServer(tmp_path, "--requirepass", "different", client_options=options) as server:
        port = server.port
        for url in (
            f"redis://:{SECRET}@127.0.0.1:{port}",
            f"redis+sentinel://:{SECRET}@127.0.0.1:{port}/x?sentinel_password={SECRET}",
            f"redis+cluster://me:{SECRET}@127.0.0.1:{port}",
        ):
            with pytest.raises(LocalServerError, match=r":\*\*\*@127.0.0.1") as caught:
                LocalServer(None, "--redis-url", url).__enter__()
            assert "cannot be used" in str(caught.value)
            assert SECRET not in str(caught.value)


def test_an_invalid_url_is_refused_at_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "advisor", "serve"],
        env=os.environ | {"ADVISOR_REDIS_URL": f"redis+sentinel://:{SECRET}@h"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "setting redis_url: the Sentinels' name of the service is missing" in output
    assert SECRET not in output


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def encrypted(tmp_path: Path, authority: Authority) -> Iterator[TlsProxy]:
    with (
        RedisServer(tmp_path / "redis") as server,
        TlsProxy(*authority.issue("redis"), authority.ca(), server.port) as proxy,
    ):
        yield proxy


def test_redis_works_over_mutual_tls(encrypted: TlsProxy, authority: Authority) -> None:
    cert, key = authority.issue("advisor")
    files = f"ssl_ca_certs={authority.ca()}&ssl_certfile={cert}&ssl_keyfile={key}"
    url = f"rediss://localhost:{encrypted.port}?{files}"
    with (
        LocalServer(None, "--redis-url", url) as service,
        AdvisorClient(service.address) as client,
    ):
        check_all_operations(client, "default")


@pytest.mark.parametrize("what", ["no certificate", "different authority", "different name"])
def test_a_redis_with_a_wrong_certificate_is_refused(
    encrypted: TlsProxy, authority: Authority, tmp_path: Path, what: str
) -> None:
    cert, key = authority.issue("advisor")
    ca, host = authority.ca(), "localhost"
    if what == "different authority":
        (tmp_path / "other").mkdir()
        ca = Authority(tmp_path / "other").ca()
    certificate = "" if what == "no certificate" else f"&ssl_certfile={cert}&ssl_keyfile={key}"
    if what == "different name":
        host = "127.0.0.2"
    url = f"rediss://{host}:{encrypted.port}?ssl_ca_certs={ca}{certificate}"
    with pytest.raises(LocalServerError, match="cannot be used"):
        LocalServer(None, "--redis-url", url).__enter__()
