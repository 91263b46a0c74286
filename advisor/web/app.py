"""The application: its routes, its limits, and what becomes of errors.

Every route answers GET and HEAD and only reads, but for the form that signs in and out, which only
sets a cookie.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from advisor.web import (
    check_pages,
    compare_pages,
    live,
    metrics_pages,
    overview_page,
    profile_pages,
    run_pages,
    sign_in_page,
)
from advisor.web.backend import Backend
from advisor.web.context import Context, Handler
from advisor.web.errors import PageNotFoundError, message_of, status_of
from advisor.web.feeds import RunFeeds
from advisor.web.limits import LimitExceededError, Limits
from advisor.web.numbers import to_json
from advisor.web.rendering import Renderer
from advisor.web.security import SecurityHeaders
from advisor.web.static_files import StaticFiles

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class WebLimits:
    """The limits of a page.

    Attributes:
        max_requests_per_s: Maximum requests per second of one viewer.
        max_live_pages: Maximum number of open live connections.
    """

    max_requests_per_s: float = 50.0
    max_live_pages: int = 1_000


def create_app(backend: Backend, limits: WebLimits) -> Starlette:
    """Return the application.

    Args:
        backend: The service to read from; the application closes it when it stops.
        limits: Its limits.
    """
    static = StaticFiles()
    context = Context(
        backend=backend,
        feeds=RunFeeds(backend),
        limits=Limits(
            max_requests_per_s=limits.max_requests_per_s, max_live_pages=limits.max_live_pages
        ),
        renderer=Renderer(static.base),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        context.feeds.start()
        loading = asyncio.create_task(asyncio.to_thread(_prepare, context.renderer), name="prepare")
        try:
            yield
        finally:
            await asyncio.gather(loading, context.stop())

    project = "/projects/{project}"
    run, profile = f"{project}/runs/{{run}}", f"{project}/profiles/{{profile}}"
    pages: dict[str, Handler] = {
        "/": overview_page.start,
        project: overview_page.overview,
        run: run_pages.run_page,
        f"{run}/figures": run_pages.figures,
        f"{run}/groups": run_pages.groups,
        f"{run}/curves.json": run_pages.curves,
        f"{run}/metrics": metrics_pages.metrics,
        f"{run}/check": check_pages.run_check,
        f"{run}/events": live.events,
        profile: profile_pages.profile_page,
        f"{project}/compare": compare_pages.compare_page,
        f"{project}/compare/check": check_pages.compared_check,
        "/sign-in": sign_in_page.form,
    }
    app = Starlette(
        routes=[
            Route("/healthz", _healthz, methods=["GET"]),
            *(
                Route(path, _handled(context, handler), methods=["GET"])
                for path, handler in pages.items()
            ),
            Route("/sign-in", _handled(context, sign_in_page.submit), methods=["POST"]),
            Mount("/static", static),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5),
        ],
        exception_handlers={HTTPException: _unrouted(context)},
        lifespan=lifespan,
    )
    app.state.context = context
    return app


def _prepare(renderer: Renderer) -> None:
    """Load what the first visitor would wait for."""
    renderer.load()
    importlib.import_module("numpy.ma")  # numpy.unique imports it when it is first called


async def _healthz(_request: Request) -> Response:
    """Answer that the process runs."""
    return PlainTextResponse("ok\n")


def _handled(context: Context, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that counts a request, and turns errors into pages."""

    async def endpoint(request: Request) -> Response:
        try:
            context.limits.request(context.limited_as(request))
            return await handler(context, request)
        except Exception as error:  # noqa: BLE001 - a page never shows a stack trace
            return await _failed(context, request, error)

    return endpoint


def _unrouted(context: Context) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        if error.status_code == HTTPStatus.NOT_FOUND:
            return await _failed(context, request, PageNotFoundError(request.url.path))
        return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)

    return answer


async def _failed(context: Context, request: Request, error: Exception) -> Response:
    """Return the page for an error."""
    status = status_of(error)
    headers = {}
    if isinstance(error, LimitExceededError):
        headers["retry-after"] = str(max(1, round(error.retry_s)))
    message = message_of(error, request.url.path)
    is_data = request.url.path.endswith((".json", "/events"))
    if is_data:
        return Response(
            to_json({"status": int(status), "error": message or status.phrase}),
            status,
            headers=headers,
            media_type=_JSON,
        )
    if status is HTTPStatus.UNAUTHORIZED:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(target)}", HTTPStatus.SEE_OTHER)
    return context.renderer.page(
        request,
        "error.html",
        status,
        headers=headers,
        message=message,
        kind=status.name.lower(),
        project=request.path_params.get("project", ""),
    )
