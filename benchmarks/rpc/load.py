"""The load: many streams, or callers of one message, each asking again when it is answered."""

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
    ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
]

_Ask = Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round.

    Attributes:
        per_second: Answers a second, of all callers together.
        p50_s: Median time of an answer.
        p99_s: Time within which 99 of 100 answers came.
    """

    per_second: float
    p50_s: float
    p99_s: float


class Load:
    """Callers of one server, as a context manager; between rounds they wait.

    Messages are made once and sent as bytes, and answers are not decoded: what is measured is the
    server. Of each caller the first answer, and the last of a round, are looked at.

    Args:
        address: The server.
        kind: Streams, or calls of one message.
        callers: How many at a time.
        groups: Groups of each run.
        label: What the runs' names begin with; empty: they have no name, and nothing is stored.
        channels: Most connections that they share.

    Attributes:
        names: The runs' identifiers.
        answer: The last of the first answers.
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
        self._most_channels = channels
        self._address = address
        self._kind = kind
        self._groups = groups
        self.names = [f"{label}-{i}" if label else "" for i in range(callers)]
        self._channels: list[grpc.aio.Channel] = []
        self._asks: list[_Ask] = []
        self.answer = pb.RecommendLRResponse()
        self.sent = 0

    async def __aenter__(self) -> Self:
        """Connect, and let each caller ask once."""
        count = min(self._most_channels, len(self.names))
        self._channels = [
            grpc.aio.insecure_channel(self._address, options=_OPTIONS) for _ in range(count)
        ]
        data = measurements(self._groups)
        for i, name in enumerate(self.names):
            first = pb.RecommendLRRequest(opening=opening(name, self._groups), measurement=data[0])
            channel = self._channels[i % count]
            if self._kind == "stream":
                ask = self._stream(channel, first, data)
            else:
                ask = self._calls(channel, first.opening, data)
            self.answer = self._checked(await ask(0))
            self._asks.append(ask)
        self.sent += len(self.names)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _stream(
        self, channel: grpc.aio.Channel, first: pb.RecommendLRRequest, data: list[pb.Measurement]
    ) -> _Ask:
        call: Any = channel.stream_stream(_METHOD)()
        messages = [pb.RecommendLRRequest(measurement=each).SerializeToString() for each in data]
        opened = first.SerializeToString()

        async def ask(turn: int) -> bytes:
            await call.write(opened if turn == 0 else messages[turn % len(messages)])
            return bytes(await call.read())

        return ask

    def _calls(
        self, channel: grpc.aio.Channel, own: pb.RunOpening, data: list[pb.Measurement]
    ) -> _Ask:
        method: Any = channel.unary_unary(_METHOD + "Once")
        messages = [
            pb.RecommendLRRequest(opening=own, measurement=each).SerializeToString()
            for each in data
        ]

        async def ask(turn: int) -> bytes:
            return bytes(await method(messages[turn % len(messages)]))

        return ask

    def _checked(self, answer: bytes) -> pb.RecommendLRResponse:
        found = pb.RecommendLRResponse.FromString(answer)
        for field in ("multipliers", "outcomes", "reference_unit_rates", "limits"):
            if len(getattr(found, field)) != self._groups:
                raise AssertionError(f"an answer of {len(getattr(found, field))} {field}")
        return found

    async def run(self, seconds: float) -> Round:
        """Let all callers ask for so many seconds."""
        times: list[float] = []
        begun = time.perf_counter()
        until = begun + seconds

        async def caller(ask: _Ask) -> None:
            turn, answer = 1, b""
            before = time.perf_counter()
            while before < until:
                answer = await ask(turn)
                now = time.perf_counter()
                times.append(now - before)
                before = now
                turn += 1
            if answer:
                self._checked(answer)

        await asyncio.gather(*map(caller, self._asks))
        self.sent += len(times)
        elapsed = time.perf_counter() - begun
        p50, p99 = np.quantile(times, (0.5, 0.99))
        return Round(len(times) / elapsed, float(p50), float(p99))
