"""A Redis whose settings keep the service from working: one line at the start says which."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from advisor.errors import StoreUnavailableError
from advisor.local.server import LocalServer, LocalServerError
from advisor.server.settings import Settings
from advisor.server.worker import start_problem
from advisor.store.redis.addresses import redacted
from advisor.store.redis.connection import connect
from advisor.store.start_check import check_store
from fslr import AdvisorClient, UnavailableError
from tests.building import content_message
from tests.certificates import Authority
from tests.commands import Cli
from tests.proxy import TlsProxy
from tests.redis_servers import RedisServer, free_port

SECRET = "s3cr3t-of-mine"


def own_address() -> str:
    """Return an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))  # sends nothing
        except OSError:
            pytest.skip("this machine has only loopback")
        return str(probe.getsockname()[0])


def start_error(url: str) -> str:
    """Return the message of a service that does not start with a Redis."""

    async def start() -> None:
        async with connect(url, timeout_s=1, retries=1) as client:
            assert await check_store(client) is None

    with pytest.raises(StoreUnavailableError, match="the store") as caught:
        asyncio.run(start())
    message = start_problem(caught.value, Settings.model_validate({"redis_url": url}))
    assert message.startswith(f"the Redis at {redacted(url)} cannot be used: ")
    assert len(message.splitlines()) == 1
    assert SECRET not in message
    return message


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_cannot_use_its_redis_prints_one_line(workers: int, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        arguments = ("--redis-url", f"{server.url}/99", "--workers", str(workers))
        with pytest.raises(LocalServerError, match="did not start: error: the Redis at") as caught:
            LocalServer(None, *arguments).__enter__()
    assert len(str(caught.value).splitlines()) == 1
    assert "no database with the number in redis_url" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "url", "words"),
    [
        (["--rename-command", "EVALSHA", ""], "{}", "not know .*'EVALSHA'.* its `rename-command`"),
        (["--rename-command", "EVAL", "run"], "{}", "not know .*'EVAL'.* its `rename-command`"),
        (["--rename-command", "XADD", ""], "{}", "not know .*from script: XADD.*`rename-command`"),
        (["--rename-command", "HELLO", ""], "{}", "not know .*'HELLO'.*or use Redis 6.2 or newer"),
        ([], "{}/99", "no database with the number in redis_url .*raise `databases`"),
        (
            ["--cluster-enabled", "yes", "--cluster-port", "{cluster_port}"],
            "{}/1",
            "a Cluster has only database 0",
        ),
        (
            ["--cluster-enabled", "yes", "--cluster-port", "{cluster_port}"],
            "{}",
            r"belongs to a Cluster .*redis\+cluster://",
        ),
        ([], "redis+cluster://127.0.0.1:{port}", "does not belong to a Cluster .*with redis://"),
        ([], "redis+sentinel://127.0.0.1:{port}/x", "not a Sentinel .*26379"),
        ([], "redis://me:" + SECRET + "@127.0.0.1:{port}", "refuses the user or the password"),
        ([], "rediss://127.0.0.1:{port}", "does not use TLS: start redis_url with redis://"),
    ],
)
def test_a_setting_that_keeps_the_service_from_working_is_named(
    settings: list[str], url: str, words: str, tmp_path: Path
) -> None:
    arguments = [argument.format(cluster_port=free_port()) for argument in settings]
    with RedisServer(tmp_path, *arguments, client_options={"protocol": 2}) as server:
        message = start_error(url.format(server.url, port=server.port))
    assert re.search(words, message), message


def test_a_missing_password_is_named(tmp_path: Path) -> None:
    options = {"password": SECRET}
    with RedisServer(tmp_path, "--requirepass", SECRET, client_options=options) as server:
        assert "requires a password" in start_error(server.url)


def test_protected_mode_is_named(tmp_path: Path) -> None:
    host = own_address()
    with RedisServer(tmp_path, "--bind", "0.0.0.0", "--protected-mode", "yes") as server:
        message = start_error(f"redis://{host}:{server.port}")
    assert "is in protected mode" in message
    assert "set a password (`requirepass`, or a user with ACL SETUSER)" in message


def test_a_port_that_uses_tls_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with (
        RedisServer(tmp_path / "redis") as server,
        TlsProxy(*authority.issue("redis"), authority.ca(), server.port) as proxy,
    ):
        message = start_error(f"redis://127.0.0.1:{proxy.port}")
        assert "this port uses TLS: start redis_url with rediss://" in message
        message = start_error(f"rediss://127.0.0.1:{proxy.port}")
        assert "certificate of Redis is not trusted" in message
        assert "add ?ssl_ca_certs=FILE to redis_url" in message


@pytest.mark.parametrize("rule", ["-evalsha", "-eval", "-xread", "-hincrby"])
def test_a_missing_right_is_named_at_the_start(rule: str, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, server.client() as admin:
        admin.execute_command("ACL SETUSER", "me", "on", f">{SECRET}", "~*", "+@all", rule)
        message = start_error(f"redis://me:{SECRET}@127.0.0.1:{server.port}")
    assert f"'{rule.removeprefix('-')}'" in message
    assert "see Rights in docs/how-to/redis.md" in message


def full(admin: redis.Redis) -> None:
    admin.config_set("maxmemory", 1)


def replica(admin: redis.Redis) -> None:
    admin.replicaof("127.0.0.1", str(free_port()))


def without_replicas(admin: redis.Redis) -> None:
    admin.config_set("min-replicas-to-write", 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (full, "the memory of Redis is full .*raise `maxmemory`"),
        (replica, "read-only replica .*put the primary into redis_url"),
        (without_replicas, "fewer replicas than `min-replicas-to-write`"),
    ],
)
def test_a_redis_that_refuses_writes_still_serves_reads(
    change: Callable[[redis.Redis], None], words: str, tmp_path: Path
) -> None:
    with RedisServer(tmp_path) as server, server.client() as admin:
        with (
            LocalServer(None, "--redis-url", server.url) as service,
            AdvisorClient(service.address) as client,
        ):
            client.register_profile("gpt", content_message(rate=0.5))
        change(admin)
        with (
            LocalServer(None, "--redis-url", server.url) as service,
            AdvisorClient(service.address, deadline_s=5) as client,
        ):
            assert re.search(f"Redis cannot be used fully.*{words}", service.log())
            assert client.get_profile("gpt").profile.version == 1
            with pytest.raises(UnavailableError, match=words):
                client.register_profile("gpt", content_message(rate=2))
            assert "Traceback" not in service.log()


def test_settings_that_change_while_the_service_runs_are_named(tmp_path: Path) -> None:
    url = "redis://me:{}@127.0.0.1:{}"
    with RedisServer(tmp_path) as server, server.client() as admin:
        admin.execute_command("ACL SETUSER", "me", "on", f">{SECRET}", "~*", "+@all")
        with (
            LocalServer(None, "--redis-url", url.format(SECRET, server.port)) as service,
            AdvisorClient(service.address, deadline_s=5) as client,
        ):
            admin.execute_command("ACL SETUSER", "me", "resetpass", ">different")
            admin.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(UnavailableError, match="refuses the user or the password"):
                client.get_profile("gpt")
            report = Cli(service.address, "default").run("doctor", ok=False).stdout
            assert "refuses the user or the password in redis_url" in report
            assert "Traceback" not in service.log()


def test_the_start_leaves_no_keys(tmp_path: Path) -> None:
    async def start(url: str) -> None:
        async with connect(url, timeout_s=1, retries=1) as client:
            assert await check_store(client) is None

    with RedisServer(tmp_path) as server, server.client() as admin:
        asyncio.run(start(server.url))
        assert admin.keys() == []
