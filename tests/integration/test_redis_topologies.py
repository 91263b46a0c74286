"""The service over Sentinel and Cluster: the same answers, and what is left when members go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.localserver import LocalServer
from fslr import AdvisorClient
from tests.redis_topologies import RedisCluster, SentinelTrio
from tests.whole_path import walk


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[SentinelTrio]:
    with SentinelTrio(tmp_path / "trio") as running:
        yield running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster") as running:
        yield running


def test_the_whole_path_works_over_sentinel(trio: SentinelTrio) -> None:
    with (
        LocalServer(None, "--redis-url", trio.url) as service,
        AdvisorClient(service.address) as client,
    ):
        walk(client, "default")


def test_the_whole_path_works_over_a_cluster(cluster: RedisCluster) -> None:
    with (
        LocalServer(None, "--redis-url", cluster.url) as service,
        AdvisorClient(service.address) as client,
    ):
        for project in cluster.projects():
            walk(client, project)
