"""A connection that is lost in a way that redis-py does not report is a connection error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from advisor.errors import StoreUnavailableError
from advisor.store.redis.clients import ClusterClient, CommandRunner
from advisor.store.redis.connection import check, connect


def closed_transport() -> Exception:
    """Return what uvloop raises if a node dies while redis-py reads from it."""
    return RuntimeError(
        "unable to perform operation on <TCPTransport closed=True reading=False 0x5581>; the "
        "handler is closed"
    )


def no_writer() -> Exception:
    """Return what redis-py raises if another task closes its connection."""
    try:
        return SimpleNamespace(writer=None).writer.write(b"")  # type: ignore[no-any-return]
    except AttributeError as error:
        return error


LOST = [closed_transport, no_writer, ConnectionResetError, lambda: EOFError("no more data")]


async def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("lost", LOST)
def test_any_command_reports_a_lost_connection(lost: Callable[[], Exception]) -> None:
    runner = CommandRunner(timeout_s=1, retries=0)
    with pytest.raises(RedisConnectionError, match=r"."):
        asyncio.run(runner.run("GET", failing(lost())))


def test_a_defect_stays_what_it_is() -> None:
    runner = CommandRunner(timeout_s=1, retries=0)
    with pytest.raises(RuntimeError, match="a defect"):
        asyncio.run(runner.run("GET", failing(RuntimeError("a defect"))))
    with pytest.raises(AttributeError, match="nothing"):
        asyncio.run(runner.run("GET", failing(AttributeError("nothing", obj=3))))


async def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Return a client of a Cluster with two primaries, whose slots it knows."""
    nodes = [ClusterNode("127.0.0.1", port, "primary") for port in (1, 2)]
    monkeypatch.setattr(ClusterClient, "initialize", nothing)
    monkeypatch.setattr(ClusterClient, "get_primaries", lambda _: list(nodes))
    return connect("redis+cluster://127.0.0.1:1", timeout_s=1, retries=0)


def answering(answer: Callable[[int], Any]) -> Callable[..., Awaitable[Any]]:
    """Return a replacement for redis-py's command, given the answer for the port of each node."""

    async def execute(_: object, *__: object, target_nodes: list[ClusterNode]) -> Any:
        reply = answer(int(target_nodes[0].port))
        if isinstance(reply, Exception):
            raise reply
        return reply

    return execute


@pytest.mark.parametrize("lost", LOST)
def test_a_cluster_serves_while_one_primary_answers(
    lost: Callable[[], Exception], cluster: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(port: int) -> Any:
        return lost() if port == 1 else {"cluster_state": "ok"}

    monkeypatch.setattr(RedisCluster, "execute_command", answering(answer))
    for _ in range(10):  # the primaries are asked in any order
        asyncio.run(check(cluster))


@pytest.mark.parametrize("lost", LOST)
def test_a_cluster_whose_nodes_die_is_unavailable(
    lost: Callable[[], Exception], cluster: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisCluster, "execute_command", answering(lambda _: lost()))
    with pytest.raises(StoreUnavailableError, match="the store does not answer"):
        asyncio.run(check(cluster))


@pytest.mark.parametrize("lost", LOST)
def test_slots_that_cannot_be_learned_make_a_cluster_unavailable(
    lost: Callable[[], Exception], cluster: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def initialize(*_: Any, **__: Any) -> None:
        raise lost()

    monkeypatch.setattr(ClusterClient, "initialize", initialize)
    with pytest.raises(StoreUnavailableError, match="the store does not answer"):
        asyncio.run(check(cluster))
