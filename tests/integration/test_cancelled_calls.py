"""Calls that end while Redis works on them never leave their answers to later calls."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import AdvisorClient
from fslr.advisor.v1 import profile_service_pb2 as pb
from fslr.advisor.v1 import profile_service_pb2_grpc
from tests.building import content_message
from tests.proxy import Proxy

PROFILES = 20


@pytest.mark.parametrize("storm", [250, pytest.param(2_000, marks=pytest.mark.long)])
def test_after_a_storm_of_cancelled_calls_every_answer_belongs_to_its_request(
    tmp_path: Path, storm: int
) -> None:
    chance = random.Random(0)
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        Proxy(tmp_path / "slow.sock", Path(store.url.removeprefix("unix://"))) as proxy,
        LocalServer(None, "--redis-url", proxy.redis_url) as service,
        AdvisorClient(service.address, deadline_s=30) as client,
    ):
        for i in range(PROFILES):
            client.register_profile(f"p{i}", content_message(rate=1.0 + i))
        stub = profile_service_pb2_grpc.ProfileServiceStub(client.channel())

        def is_its_own(i: int) -> bool:
            profile = client.get_profile(f"p{i}").profile
            wanted = content_message(rate=1.0 + i)
            return (
                profile.name == f"projects/default/profiles/p{i}@1"
                and profile.content.points[0].unit_rates == wanted.points[0].unit_rates
            )

        def break_off(i: int) -> grpc.StatusCode:
            """Begin a call, a read or a write, that has no time to end."""
            name = f"projects/default/profiles/p{i % PROFILES}"
            timeout_s = chance.uniform(0.001, 0.005)
            if i % 2:
                move = pb.SetProfileAliasRequest(name=f"{name}@1", alias="prod")
                return stub.SetProfileAlias.future(move, timeout=timeout_s).code()
            get = pb.GetProfileRequest(name=name)
            return stub.GetProfile.future(get, timeout=timeout_s).code()

        def one_of_the_storm(i: int) -> tuple[grpc.StatusCode, bool]:
            return break_off(i), is_its_own(chance.randrange(PROFILES))

        proxy.delay_s = 0.003
        with ThreadPoolExecutor(8) as pool:
            codes, meanwhile = zip(*pool.map(one_of_the_storm, range(storm)), strict=True)
        proxy.delay_s = 0.0
        assert codes.count(grpc.StatusCode.DEADLINE_EXCEEDED) > storm / 2
        assert all(meanwhile)
        assert all(is_its_own(i) for i in range(PROFILES))
        assert "Traceback" not in service.log()
