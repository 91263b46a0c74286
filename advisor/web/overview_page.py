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
from fslr.resource_names import DEFAULT_PROJECT

_NOW = ("training", "two jobs")


async def start(context: Context, request: Request) -> Response:
    """Go to the overview of the viewer's project."""
    _, caller = await context.signed_in(request)
    project = request.query_params.get("project") or own_project(caller) or DEFAULT_PROJECT
    return RedirectResponse(f"/projects/{quote(project, safe='')}", HTTPStatus.SEE_OTHER)


async def overview(context: Context, request: Request) -> Response:
    """Return the overview of a project."""
    viewer, caller = await context.signed_in(request)
    project = request.path_params["project"]
    now = datetime.now(UTC)
    runs = [RunRow.of(run, now) for run in await context.backend.runs(viewer, project)]
    profiles = [ProfileRow.of(p) for p in await context.backend.profiles(viewer, project)]
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
        service=await context.backend.status(viewer),
    )
