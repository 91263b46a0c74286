"""AuditService: the record of writes in a project."""

from __future__ import annotations

import re
from typing import Any

import grpc

from advisor.registry.resource_names import parse_project
from advisor.rpc.paging import decode_token, encode_token, page_size
from advisor.store.audit import AuditStore
from advisor.wire import timestamp_to_proto
from fslr.advisor.v1 import audit_service_pb2 as pb
from fslr.advisor.v1 import audit_service_pb2_grpc

# IDs of a Redis stream: two numbers of 64 bits each, above 0-0.
_CURSOR = re.compile(r"(?!0+-0+$)[0-9]{1,19}-[0-9]{1,19}")


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Serves the record of writes.

    Args:
        store: Stores the record.
    """

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListAuditEventsResponse:
        """Return a page of writes, newest first."""
        events, before = await self._store.page(
            parse_project("parent", request.parent),
            before=decode_token(request.page_token, _CURSOR),
            size=page_size(request.page_size),
        )
        return pb.ListAuditEventsResponse(
            events=[
                pb.AuditEvent(
                    id=event.id,
                    time=timestamp_to_proto(event.origin.time),
                    actor=event.origin.actor,
                    peer=event.origin.peer,
                    request_id=event.origin.request_id,
                    action=event.action,
                    name=event.name,
                    detail=event.detail,
                )
                for event in events
            ],
            next_page_token=encode_token(before),
        )
