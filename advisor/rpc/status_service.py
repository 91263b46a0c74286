"""StatusService: how a deployment is set up, and who it takes its caller for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import grpc
from redis.asyncio import Redis

from advisor.rpc.authorization import CALLER
from advisor.store.status import StoreStatus, read_status
from advisor.wire import timestamp_to_proto
from fslr.advisor.v1 import status_service_pb2 as pb
from fslr.advisor.v1 import status_service_pb2_grpc

_VERSION = version("fslr-advisor")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The setup of a service.

    Attributes:
        encrypted: Whether calls use TLS.
        authenticates: Whether callers must authenticate.
        loopback: Whether only this machine can reach the service.
        topology: Topology of Redis: ``standalone``, ``sentinel`` or ``cluster``.
    """

    encrypted: bool
    authenticates: bool
    loopback: bool
    topology: str


class StatusServicer(status_service_pb2_grpc.StatusServiceServicer):
    """Reports how the service is set up.

    Args:
        deployment: The setup of the service.
        redis: The client of Redis, whose status is reported too.
        now: The clock.
    """

    def __init__(self, deployment: Deployment, redis: Redis, now: Callable[[], datetime]) -> None:
        self._deployment = deployment
        self._redis = redis
        self._now = now

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetStatusResponse:
        """Return the status."""
        store = _store(await read_status(self._redis), self._deployment.topology)
        return pb.GetStatusResponse(
            version=_VERSION,
            time=timestamp_to_proto(self._now()),
            encrypted=self._deployment.encrypted,
            authenticates=self._deployment.authenticates,
            loopback=self._deployment.loopback,
            caller=_caller(),
            store=store,
        )


def _caller() -> pb.Caller:
    grant = CALLER.get()
    if grant is None:
        return pb.Caller()
    return pb.Caller(
        name=grant.name,
        project=f"projects/{grant.project}",
        role=pb.Role.Value(f"ROLE_{grant.role.name}"),
        expire_time=None if grant.expire_time is None else timestamp_to_proto(grant.expire_time),
    )


def _store(found: StoreStatus, topology: str) -> pb.StoreStatus:
    if found.problem:
        return pb.StoreStatus(available=False, topology=topology, problem=found.problem)
    return pb.StoreStatus(
        available=True,
        topology=topology,
        version=found.version,
        append_only=found.append_only,
        flush=found.flush,
        eviction=found.eviction,
        replicas=found.replicas,
        clock_offset_s=found.clock_offset_s,
    )
