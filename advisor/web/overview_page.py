"""The overview: runs now and lately, profiles in use, and the health of the service."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from advisor.report.profiles import ProfileRow
from advisor.report.runs import RunRow
from advisor.report.words import short_name
from advisor.web.context import Context, own_project
from fslr.errors import UnavailableError
from fslr.resource_names import DEFAULT_PROJECT

_NOW = ("training", "two jobs")


async def start(context: Context, request: Request) -> Response:
    """Go to the overview of the viewer's project."""
    _, caller = await context.signed_in(request)
    project = request.query_params.get("project") or own_project(caller) or DEFAULT_PROJECT
    return RedirectResponse(f"/projects/{quote(project, safe='')}", HTTPStatus.SEE_OTHER)


async def overview(context: Context, request: Request) -> Response:
    """Return the overview of a project; without Redis, the health of the service only."""
    viewer, caller = await context.signed_in(request)
    project = request.path_params["project"]
    backend = context.backend
    service = await backend.status(viewer)
    now = datetime.now(UTC)
    runs, profiles, problem = [], [], ""
    try:
        runs = [RunRow.of(run, now) for run in await backend.runs(viewer, project)]
        profiles = [ProfileRow.of(each) for each in await backend.profiles(viewer, project)]
    except UnavailableError as error:
        problem = str(error)
        service = await backend.status(viewer, max_age_s=0)  # fails if it is the service itself
    current = [run for run in runs if run.state in _NOW]
    used = Counter(short_name(run.profile).partition("@")[0] for run in current)
    return context.renderer.page(
        request,
        "overview.html",
        project=project,
        caller=caller,
        current=current,
        earlier=[run for run in runs if run.state not in _NOW],
        profiles=profiles,
        used=used,
        problem=problem,
        service=service,
    )
