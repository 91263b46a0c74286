"""A call cancelled while Redis works on it never passes its reply to a later call."""

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


@pytest.mark.parametrize(
    "cancelled",
    [250, pytest.param(1_000, marks=pytest.mark.long)],
)
def test_every_answer_matches_its_request_after_many_cancelled_calls(
    tmp_path: Path, cancelled: int
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

        def is_correct(i: int) -> bool:
            profile = client.get_profile(f"p{i}").profile
            expected = content_message(rate=1.0 + i)
            return (
                profile.name == f"projects/default/profiles/p{i}@1"
                and profile.content.points[0].unit_rates == expected.points[0].unit_rates
            )

        def cancel(i: int) -> grpc.StatusCode:
            """Start a read or a write whose deadline is too short to finish."""
            name = f"projects/default/profiles/p{i % PROFILES}"
            timeout_s = chance.uniform(0.001, 0.005)
            if i % 2:
                move = pb.SetProfileAliasRequest(name=f"{name}@1", alias="prod")
                return stub.SetProfileAlias.future(move, timeout=timeout_s).code()
            get = pb.GetProfileRequest(name=name)
            return stub.GetProfile.future(get, timeout=timeout_s).code()

        def cancel_and_read(i: int) -> tuple[grpc.StatusCode, bool]:
            return cancel(i), is_correct(chance.randrange(PROFILES))

        proxy.delay_s = 0.003
        with ThreadPoolExecutor(8) as pool:
            codes, correct = zip(*pool.map(cancel_and_read, range(cancelled)), strict=True)
        proxy.delay_s = 0.0
        assert codes.count(grpc.StatusCode.DEADLINE_EXCEEDED) > cancelled / 2
        assert all(correct)
        assert all(is_correct(i) for i in range(PROFILES))
        assert "Traceback" not in service.log()
