"""A service to fuzz: it has valid content, and is checked after the last input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import grpc
from google.protobuf.message import Message

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr.advisor.v1 import advisor_service_pb2
from tests.building import content_message, layout_message
from tests.fuzz import valid
from tests.fuzz.bearers import CANARY_PROJECT, Bearers
from tests.fuzz.calling import send
from tests.fuzz.inputs import Input
from tests.fuzz.judging import Answer, complaint
from tests.fuzz.methods import by_name

# Small limits, so that the profile cache and the queue of measurements cannot grow.
_SETTINGS = {
    "ADVISOR_MAX_CACHED_PROFILES": "8",
    "ADVISOR_MAX_QUEUED_MEASUREMENTS": "200",
    "ADVISOR_REDIS_TIMEOUT_S": "30",
}
_CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


class FuzzedService:
    """A service, and a channel to it without message types.

    Args:
        server: The service.
        bearers: Its tokens; None if it does not require tokens.
        runner: Runs the calls.
    """

    def __init__(
        self, server: LocalServer, bearers: Bearers | None, runner: asyncio.Runner
    ) -> None:
        self.server = server
        self.bearers = bearers
        self._runner = runner
        self._channel: grpc.aio.Channel = runner.run(_channel_to(server.address))

    def send(self, *inputs: Input) -> list[Answer]:
        """Send inputs concurrently, and return the answers in the order of the inputs."""

        async def answers() -> list[Answer]:
            return await asyncio.gather(*(send(self._channel, sent) for sent in inputs))

        return self._runner.run(answers())

    def authorized(self, sent: Input) -> Input:
        """Return an input with the right token, if the service requires one."""
        return sent if self.bearers is None else self.bearers.authorized(sent)

    def expect_ok(self, method: str, message: Message) -> Answer:
        """Send a valid request with the right token; return the answer, which must be OK."""
        sent = self.authorized(Input(by_name()[method], (message.SerializeToString(),)))
        (answer,) = self.send(sent)
        assert answer.code is grpc.StatusCode.OK or answer.cut, (method, answer)
        assert not complaint(sent, answer)
        return answer

    def check_last_answer(self) -> None:
        """Check a known answer: the profile's own rates must give multipliers of 1."""
        content = content_message()
        name = f"projects/{CANARY_PROJECT}/profiles/gpt"
        self.expect_ok(*valid.registration(name, content))
        request = advisor_service_pb2.RecommendLRRequest(
            opening=advisor_service_pb2.RunOpening(profile=name, layout=layout_message()),
            measurement=advisor_service_pb2.Measurement(unit_rates=content.points[0].unit_rates),
        )
        method = "AdvisorService/RecommendLROnce"
        (data,) = self.expect_ok(method, request).responses
        response: Any = by_name()[method].response.FromString(data)
        assert list(response.multipliers) == [1.0] * 4

    def check_log(self) -> None:
        """Check that the log has no error, no unexpected line and no token."""
        secrets = [] if self.bearers is None else self.bearers.secrets
        for line in self.server.log().splitlines():
            assert json.loads(line)["level"] in {"debug", "info", "warning"}, line[:2_000]
            assert not any(secret in line for secret in secrets), line[:2_000]

    def processor_seconds(self) -> float:
        """Return the processor time in seconds that the service has used so far."""
        stat = Path(f"/proc/{self.server.pid}/stat").read_text("utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_kib(self) -> int:
        """Return the resident memory of the service in KiB."""
        status = Path(f"/proc/{self.server.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

    def close(self) -> None:
        """Close the channel."""
        self._runner.run(self._channel.close())


async def _channel_to(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, _CHANNEL_OPTIONS)


@contextlib.contextmanager
def fuzzed_service(*, authenticate: bool = False) -> Iterator[FuzzedService]:
    """Run a service with valid content; it is checked when the context ends.

    Args:
        authenticate: Whether it requires tokens, which are then created.

    Yields:
        The service.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, _SETTINGS))
        options, bearers = ["--grace-s", "1", "--log-json"], None
        if authenticate:
            folder = stack.enter_context(TemporaryDirectory(prefix="fslr-fuzz-"))
            redis = stack.enter_context(EmbeddedRedis(Path(folder)))
            bearers = Bearers.created_at(redis.url)
            options += ["--redis-url", redis.url, "--authenticate"]
        server = stack.enter_context(LocalServer(None, *options))
        runner = stack.enter_context(asyncio.Runner())
        service = FuzzedService(server, bearers, runner)
        stack.callback(service.close)
        for method, message in valid.seeding():
            service.expect_ok(method, message)
        time.sleep(0.3)  # runs are stored in the background, at most 0.05 s later
        yield service
        service.check_last_answer()
        service.check_log()
