"""``python -m benchmarks.rpc.echo``: an echo server on the service's own stack.

It uses gRPC on asyncio and uvloop with the service's messages and channel options, but no
interceptors, decisions, Redis or metrics. Its throughput is the most that any service on this stack
can reach.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import uvloop

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]
# The options of the service, see advisor.server.bootstrap.
_OPTIONS = [
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 4 * 64 * 2**20),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


class _Echo(advisor_service_pb2_grpc.AdvisorServiceServicer):
    """Answers every request with the same message."""

    def __init__(self, answer: pb.RecommendLRResponse) -> None:
        self._answer = answer

    async def RecommendLR(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[pb.RecommendLRRequest],
        context: _Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.RecommendLRResponse]:
        """Answer each message of a stream."""
        async for _ in request_iterator:
            yield self._answer

    async def RecommendLROnce(  # noqa: N802
        self,
        request: pb.RecommendLRRequest,  # noqa: ARG002
        context: _Context,  # noqa: ARG002
    ) -> pb.RecommendLRResponse:
        """Answer a unary call."""
        return self._answer


async def _serve(answer: pb.RecommendLRResponse, address_file: Path) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    advisor_service_pb2_grpc.add_AdvisorServiceServicer_to_server(_Echo(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    temporary = address_file.with_name(address_file.name + ".new")
    temporary.write_text(f"127.0.0.1:{port}", "utf-8")
    temporary.replace(address_file)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    answer_file, address = map(Path, sys.argv[1:])
    uvloop.run(_serve(pb.RecommendLRResponse.FromString(answer_file.read_bytes()), address))
