"""The parts of redis-py that our clients use beyond its documented interface.

A new release of redis-py may remove any of them without notice. Each is listed here with the place
that needs it, so that an upgrade fails with a list of places to check. `pyproject.toml` limits the
major version for the same reason.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from redis._parsers import AsyncCommandsParser
from redis.asyncio import Connection, Redis, cluster, sentinel
from redis.commands.core import StreamCommands
from redis.exceptions import AskError, MovedError

CLIENTS = "advisor/store/redis/clients.py"

ATTRIBUTES = [
    (Redis, "execute_command", f"{CLIENTS}, ServerClient.execute_command"),
    (Redis, "pipeline", f"{CLIENTS}, ServerClient.execute_pipeline"),
    (sentinel.Sentinel, "discover_master", f"{CLIENTS}, LatestEpochSentinel"),
    (sentinel.Sentinel, "check_master_state", f"{CLIENTS}, LatestEpochSentinel.discover_master"),
    (sentinel.SentinelConnectionPool, "get_master_address", f"{CLIENTS}, ServerClient.check"),
    (cluster.RedisCluster, "initialize", f"{CLIENTS}, ClusterClient.initialize"),
    (cluster.RedisCluster, "execute_command", f"{CLIENTS}, ClusterClient.execute_command"),
    (cluster.RedisCluster, "get_node", f"{CLIENTS}, ClusterClient.follow_redirect"),
    (cluster.RedisCluster, "get_node_from_key", f"{CLIENTS}, ClusterClient"),
    (
        cluster.RedisCluster,
        "get_primaries",
        f"{CLIENTS}, ClusterClient.check; advisor/store/status.py",
    ),
    (cluster.NodesManager, "move_slot", f"{CLIENTS}, ClusterClient.execute_pipeline"),
    (cluster.NodesManager, "aclose", f"{CLIENTS}, ClusterClient.__aexit__"),
    (AsyncCommandsParser, "initialize", f"{CLIENTS}, _KnownCommandKeys"),
    (AsyncCommandsParser, "get_keys", f"{CLIENTS}, _KnownCommandKeys"),
]

PARAMETERS: list[tuple[Callable[..., Any], str, str]] = [
    (Redis.aclose, "close_connection_pool", f"{CLIENTS}, ServerClient.aclose"),
    (sentinel.Sentinel.__init__, "sentinel_kwargs", "advisor/store/redis/connection.py"),
    (sentinel.Sentinel.master_for, "redis_class", "advisor/store/redis/connection.py"),
    (
        cluster.RedisCluster.initialize,
        "last_failed_node_name",
        f"{CLIENTS}, ClusterClient.initialize",
    ),
    (cluster.RedisCluster.__init__, "require_full_coverage", "advisor/store/redis/connection.py"),
    (
        cluster.ClusterPipeline.execute,
        "raise_on_error",
        f"{CLIENTS}, ClusterClient.execute_pipeline",
    ),
    (
        cluster.ClusterPipeline.execute,
        "allow_redirections",
        f"{CLIENTS}, ClusterClient.execute_pipeline",
    ),
    (cluster.NodesManager.aclose, "attr", f"{CLIENTS}, ClusterClient.__aexit__"),
]


def gone(what: str, place: str) -> str:
    return f"redis-py {version('redis')} has no {what} any more; change {place}"


@pytest.mark.parametrize(("owner", "name", "place"), ATTRIBUTES)
def test_redis_py_still_has_the_method(owner: type, name: str, place: str) -> None:
    assert callable(getattr(owner, name, None)), gone(f"{owner.__name__}.{name}", place)


@pytest.mark.parametrize(("method", "name", "place"), PARAMETERS)
def test_redis_py_still_has_the_parameter(
    method: Callable[..., Any], name: str, place: str
) -> None:
    parameters = inspect.signature(method).parameters
    assert name in parameters, gone(f"parameter {name!r} of {method.__qualname__}", place)


def test_a_cluster_client_still_has_the_attributes_that_ours_sets() -> None:
    client = cluster.RedisCluster(startup_nodes=[cluster.ClusterNode("localhost", 1)])
    for name in ("_initialize", "commands_parser", "nodes_manager"):
        assert hasattr(client, name), gone(f"RedisCluster.{name}", f"{CLIENTS}, ClusterClient")
    assert client._initialize is True, "RedisCluster._initialize no longer asks for a new start"
    for name in ("nodes_cache", "startup_nodes"):
        what = f"NodesManager.{name}"
        assert hasattr(client.nodes_manager, name), gone(
            what, f"{CLIENTS}, ClusterClient.__aexit__"
        )
    node = cluster.ClusterNode("127.0.0.1", 1)
    assert node.name == "127.0.0.1:1", gone("ClusterNode.name", f"{CLIENTS}, ClusterClient")
    assert Connection()._writer is None, gone(
        "Connection._writer", f"{CLIENTS}, closed connections"
    )


def test_sentinels_still_list_their_clients() -> None:
    manager: Any = sentinel.Sentinel
    (client,) = manager([("localhost", 1)]).sentinels
    assert isinstance(client, Redis), gone("Sentinel.sentinels", f"{CLIENTS}, LatestEpochSentinel")


def test_a_cluster_still_notes_which_node_failed_on_the_error() -> None:
    source = inspect.getsource(cluster.RedisCluster)
    assert "e.last_failed_node_name = " in source, gone(
        "attribute last_failed_node_name on errors", f"{CLIENTS}, ClusterClient._with_retries"
    )


def test_redirections_still_name_host_and_port() -> None:
    moved, ask = MovedError("1 localhost:7000"), AskError("1 localhost:7000")
    for error in (moved, ask):
        assert (error.host, error.port) == ("localhost", 7000), gone(
            f"{type(error).__name__}.host and .port", f"{CLIENTS}, ClusterClient.follow_redirect"
        )


def test_xread_still_marks_its_keys_with_the_same_word() -> None:
    class Recorder(StreamCommands):
        _event_dispatcher: Any = None

        def execute_command(self, *arguments: Any, **_: Any) -> Any:
            return arguments

    recorder: Any = Recorder()
    name, *arguments = recorder.xread({"key": "0"}, count=2, block=1)
    assert name == "XREAD"
    behind = arguments[arguments.index(b"STREAMS") + 1 :]
    assert behind == ["key", "0"], gone("b'STREAMS' before XREAD's keys", f"{CLIENTS}, get_keys")


def test_the_major_version_of_redis_py_is_bounded() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    (requirement,) = (
        entry
        for entry in project["optional-dependencies"]["server"]
        if entry.startswith("redis[hiredis]")
    )
    bound = re.search(r"<(\d+)$", requirement)
    assert bound, f"{requirement} has no upper bound, but our clients use internals of redis-py"
    assert int(version("redis").partition(".")[0]) < int(bound[1])
