"""Reads runs and profiles from a service, with the token of the person who looks at the page.

Everything goes through the RPCs, so roles, isolation of projects and quotas are theirs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from cachetools import LRUCache

from fslr.advisor.v1 import (
    profile_service_pb2,
    profile_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
)
from fslr.client.certificates import CertificateFiles
from fslr.client.http_proxies import channel_options
from fslr.client.status_errors import service_error
from fslr.resource_names import profile_name, project_name, run_name

_DEADLINE_S = 10.0
_STATUS_CACHE_S = 5.0
_MAX_CALLERS = 10_000
_MAX_LISTED = 200
_MAX_REPORTS = 1_000


@dataclass(frozen=True, slots=True)
class Viewer:
    """The person who looks at a page.

    Attributes:
        token: The token that they signed in with; empty: none.
    """

    token: str

    def __repr__(self) -> str:
        """Return whether there is a token, but not the token."""
        return f"Viewer(signed_in={bool(self.token)})"

    @property
    def key(self) -> str:
        """Identifies the viewer without revealing the token."""
        return hashlib.sha256(self.token.encode()).hexdigest()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the viewer's calls."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


class Backend:
    """The RPCs of a service, without those that write.

    Args:
        address: Address of the service.
        tls: TLS files; None: the connection is not encrypted.

    Raises:
        CertificateError: The TLS files cannot be used.
        ServiceError: From every method, if the service refuses a call or does not answer.
    """

    def __init__(self, address: str, tls: CertificateFiles | None = None) -> None:
        self.address = address
        options = [("grpc.max_receive_message_length", -1), *channel_options(address)]
        if tls is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            read = tls.read()
            credentials = grpc.ssl_channel_credentials(read.ca, *(read.pair or ()))
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)
        self._statuses: LRUCache[str, tuple[float, status_service_pb2.GetStatusResponse]] = (
            LRUCache(_MAX_CALLERS)
        )
        self._runs: Any = run_service_pb2_grpc.RunServiceStub(self._channel)
        self._profiles: Any = profile_service_pb2_grpc.ProfileServiceStub(self._channel)
        self._status: Any = status_service_pb2_grpc.StatusServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def status(
        self, viewer: Viewer, *, max_age_s: float = _STATUS_CACHE_S
    ) -> status_service_pb2.GetStatusResponse:
        """Return the status of the service, and who it takes the viewer for.

        Args:
            viewer: The viewer.
            max_age_s: How old the answer may be, in seconds.
        """
        known = self._statuses.get(viewer.key)
        if known is not None and time.monotonic() - known[0] < max_age_s:
            return known[1]
        self._statuses.pop(viewer.key, None)
        answer: status_service_pb2.GetStatusResponse = await self._call(
            self._status.GetStatus, status_service_pb2.GetStatusRequest(), viewer
        )
        self._statuses[viewer.key] = (time.monotonic(), answer)
        return answer

    async def runs(self, viewer: Viewer, project: str) -> list[run_service_pb2.Run]:
        """Return the newest runs of a project, without their layouts."""
        request = run_service_pb2.ListRunsRequest(
            parent=project_name(project), page_size=_MAX_LISTED
        )
        answer = await self._call(self._runs.ListRuns, request, viewer)
        return list(answer.runs)

    async def run(self, viewer: Viewer, project: str, run: str) -> run_service_pb2.Run:
        """Return a run."""
        request = run_service_pb2.GetRunRequest(name=run_name(run, project))
        found: run_service_pb2.Run = (await self._call(self._runs.GetRun, request, viewer)).run
        return found

    async def history(
        self, viewer: Viewer, project: str, run: str, *, after_id: str, size: int
    ) -> run_service_pb2.GetRunHistoryResponse:
        """Return up to ``size`` events after an id; empty: from the oldest."""
        request = run_service_pb2.GetRunHistoryRequest(
            name=run_name(run, project), after_id=after_id, page_size=size
        )
        answer: run_service_pb2.GetRunHistoryResponse = await self._call(
            self._runs.GetRunHistory, request, viewer
        )
        return answer

    async def metrics(
        self, viewer: Viewer, project: str, run: str
    ) -> list[run_service_pb2.MetricReport]:
        """Return the stored reports of a run's own metrics, in the order of their arrival."""
        found: list[run_service_pb2.MetricReport] = []
        while True:
            request = run_service_pb2.ListRunMetricsRequest(
                name=run_name(run, project),
                after_id=found[-1].id if found else "",
                page_size=_MAX_REPORTS,
            )
            answer = await self._call(self._runs.ListRunMetrics, request, viewer)
            found += answer.reports
            if not answer.more or not answer.reports:
                return found

    async def watch(
        self, viewer: Viewer, project: str, run: str, *, after_id: str
    ) -> AsyncGenerator[run_service_pb2.RunEvent, None]:
        """Yield the events after an id as they arrive."""
        request = run_service_pb2.WatchRunRequest(name=run_name(run, project), after_id=after_id)
        call = self._runs.WatchRun(request, metadata=viewer.metadata)
        try:
            async for answer in call:
                yield answer.event
        except grpc.RpcError as error:
            raise service_error(error, self.address) from error
        finally:
            call.cancel()

    async def profiles(self, viewer: Viewer, project: str) -> list[Any]:
        """Return the latest versions of a project's profiles, without their points."""
        request = profile_service_pb2.ListProfilesRequest(
            parent=project_name(project), page_size=_MAX_LISTED
        )
        answer = await self._call(self._profiles.ListProfiles, request, viewer)
        return list(answer.profiles)

    async def profile(
        self, viewer: Viewer, project: str, profile: str
    ) -> profile_service_pb2.GetProfileResponse:
        """Return a version of a profile: ``name``, ``name@version`` or ``name@alias``."""
        request = profile_service_pb2.GetProfileRequest(name=profile_name(profile, project))
        answer: profile_service_pb2.GetProfileResponse = await self._call(
            self._profiles.GetProfile, request, viewer
        )
        return answer

    async def _call(self, method: Callable[..., Any], request: Any, viewer: Viewer) -> Any:
        try:
            return await method(request, timeout=_DEADLINE_S, metadata=viewer.metadata)
        except grpc.RpcError as error:
            raise service_error(error, self.address) from error
