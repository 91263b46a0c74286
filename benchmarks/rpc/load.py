"""The load: many streams or unary callers, each of which sends again when it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import grpc
import numpy as np

from benchmarks.rpc.payload import measurements, opening
from fslr.advisor.v1 import advisor_service_pb2 as pb

Kind = Literal["stream", "once"]
_METHOD = "/fslr.advisor.v1.AdvisorService/RecommendLR"
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # otherwise all channels share one connection
    ("grpc.enable_http_proxy", 0),
]

_Send = Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Round:
    """The results of one round.

    Attributes:
        per_second: Answers per second, of all callers together.
        p50_s: Median latency.
        p99_s: 99th percentile of the latency.
    """

    per_second: float
    p50_s: float
    p99_s: float


class Load:
    """Callers of one server, as a context manager. Between rounds they wait.

    Messages are built once and sent as bytes, and answers are not decoded, so that the server is
    what is measured. Each caller's first answer, and its last one of a round, are checked.

    Args:
        address: Address of the server.
        kind: Whether to send messages in streams or in unary calls.
        callers: Number of concurrent callers.
        groups: Groups of each run.
        label: Prefix of the names of the runs; empty for runs without a name, which are not stored.
        channels: Maximum number of connections that the callers share.

    Attributes:
        names: The identifiers of the runs.
        answer: The first answer to the last caller.
        sent: Number of messages sent so far.
    """

    def __init__(
        self,
        address: str,
        kind: Kind,
        *,
        callers: int,
        groups: int,
        label: str,
        channels: int = 4,
    ) -> None:
        self._max_channels = channels
        self._address = address
        self._kind = kind
        self._groups = groups
        self.names = [f"{label}-{i}" if label else "" for i in range(callers)]
        self._channels: list[grpc.aio.Channel] = []
        self._senders: list[_Send] = []
        self.answer = pb.RecommendLRResponse()
        self.sent = 0

    async def __aenter__(self) -> Self:
        """Connect, and send the first message of each caller."""
        count = min(self._max_channels, len(self.names))
        self._channels = [
            grpc.aio.insecure_channel(self._address, options=_OPTIONS) for _ in range(count)
        ]
        data = measurements(self._groups)
        for i, name in enumerate(self.names):
            first = pb.RecommendLRRequest(opening=opening(name, self._groups), measurement=data[0])
            channel = self._channels[i % count]
            if self._kind == "stream":
                send = self._stream(channel, first, data)
            else:
                send = self._unary(channel, first.opening, data)
            self.answer = self._check(await send(0))
            self._senders.append(send)
        self.sent += len(self.names)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _stream(
        self, channel: grpc.aio.Channel, first: pb.RecommendLRRequest, data: list[pb.Measurement]
    ) -> _Send:
        call: Any = channel.stream_stream(_METHOD)()
        messages = [pb.RecommendLRRequest(measurement=each).SerializeToString() for each in data]
        opened = first.SerializeToString()

        async def send(turn: int) -> bytes:
            await call.write(opened if turn == 0 else messages[turn % len(messages)])
            return bytes(await call.read())

        return send

    def _unary(
        self, channel: grpc.aio.Channel, run: pb.RunOpening, data: list[pb.Measurement]
    ) -> _Send:
        method: Any = channel.unary_unary(_METHOD + "Once")
        messages = [
            pb.RecommendLRRequest(opening=run, measurement=each).SerializeToString()
            for each in data
        ]

        async def send(turn: int) -> bytes:
            return bytes(await method(messages[turn % len(messages)]))

        return send

    def _check(self, answer: bytes) -> pb.RecommendLRResponse:
        found = pb.RecommendLRResponse.FromString(answer)
        for field in ("multipliers", "outcomes", "reference_unit_rates", "limits"):
            if len(getattr(found, field)) != self._groups:
                raise AssertionError(
                    f"an answer has {len(getattr(found, field))} {field} for {self._groups} groups"
                )
        return found

    async def run(self, seconds: float) -> Round:
        """Let all callers send for a time.

        Args:
            seconds: The time.
        """
        times: list[float] = []
        begun = time.perf_counter()
        until = begun + seconds

        async def caller(send: _Send) -> None:
            turn, answer = 1, b""
            before = time.perf_counter()
            while before < until:
                answer = await send(turn)
                now = time.perf_counter()
                times.append(now - before)
                before = now
                turn += 1
            if answer:
                self._check(answer)

        await asyncio.gather(*map(caller, self._senders))
        self.sent += len(times)
        elapsed = time.perf_counter() - begun
        p50, p99 = np.quantile(times, (0.5, 0.99))
        return Round(len(times) / elapsed, float(p50), float(p99))
