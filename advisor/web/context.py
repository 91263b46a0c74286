"""What every handler of a request works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from advisor.report.words import short_name
from advisor.web.backend import Backend, Viewer
from advisor.web.feeds import RunFeeds
from advisor.web.limits import Limits
from advisor.web.rendering import Renderer
from advisor.web.run_feed import RunFeed
from advisor.web.sessions import viewer_of
from fslr.advisor.v1 import status_service_pb2


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the application.

    Attributes:
        backend: The service to read from.
        feeds: The runs that pages look at.
        limits: The limits.
        renderer: Renders the templates.
    """

    backend: Backend
    feeds: RunFeeds
    limits: Limits
    renderer: Renderer

    async def stop(self) -> None:
        """End the live pages, and close the connection to the service."""
        await self.feeds.stop()
        await self.backend.close()

    def limited_as(self, request: Request) -> str:
        """Return who a request counts for: the holder of the token, or the address."""
        viewer = viewer_of(request)
        return viewer.key if viewer.token else (request.client.host if request.client else "")

    async def signed_in(self, request: Request) -> tuple[Viewer, status_service_pb2.Caller | None]:
        """Return the viewer, and who the service takes them for.

        Returns:
            The viewer and the caller; None: the service does not authenticate callers.

        Raises:
            AuthenticationError: The viewer has no valid token, and the service needs one.
        """
        viewer = viewer_of(request)
        status = await self.backend.status(viewer)
        return viewer, status.caller if status.authenticates else None

    async def feed(self, request: Request) -> RunFeed:
        """Return the feed of the run that a request names.

        Raises:
            AuthenticationError: The viewer has no valid token, and the service needs one.
            ServiceError: The run cannot be read.
        """
        viewer, _ = await self.signed_in(request)
        return await self.feeds.get(
            viewer, request.path_params["project"], request.path_params["run"]
        )


Handler = Callable[[Context, Request], Awaitable[Response]]
"""Answers a request."""


def own_project(caller: status_service_pb2.Caller | None) -> str:
    """Return the project of a caller; empty: any project."""
    return short_name(caller.project) if caller is not None else ""
