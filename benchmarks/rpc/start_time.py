"""The time until a new service answers, and the time to import the client."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from advisor.local.server import LocalServer
from benchmarks.rpc.payload import recommend_request
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2_grpc

_IMPORT = "import time; t = time.perf_counter(); import fslr; print(time.perf_counter() - t)"
_DEADLINE_S = 30.0


def first_answer_s(redis_url: str, times: int) -> float:
    """Return the median time from the start of a service to its first recommendation.

    Args:
        redis_url: A Redis server with the profile for runs of 100 groups.
        times: Number of services to start.
    """
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        with (
            LocalServer(None, "--redis-url", redis_url) as server,
            AdvisorClient(server.address) as client,
        ):
            stub = advisor_service_pb2_grpc.AdvisorServiceStub(client.channel())
            stub.RecommendLROnce(recommend_request("", 100), timeout=_DEADLINE_S)
            found.append(time.perf_counter() - begun)
    return statistics.median(found)


def import_s(times: int) -> float:
    """Return the median time of ``import fslr`` in a new interpreter."""
    return statistics.median(
        float(
            subprocess.run(
                [sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(times)
    )
