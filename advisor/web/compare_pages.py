"""Two runs, or two versions of a profile, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from advisor.policy.arrays import Floats
from advisor.report.profile_curves import ProfileCurves
from advisor.report.run_columns import aligned_extremes
from advisor.report.runs import RunRow
from advisor.report.texts import Texts
from advisor.report.words import short_name
from advisor.web.context import Context
from advisor.web.numbers import rounded, to_json
from advisor.web.rendering import language_of
from advisor.web.run_feed import RunFeed
from advisor.web.script_texts import script_texts

_BUCKETS = 250
_FIGURES = (
    *(("loss", "loss"), ("total_rate", "total_rate"), ("learning_rate", "learning_rate")),
    *(("page.min_multiplier", "min_multiplier"), ("page.max_multiplier", "max_multiplier")),
)
"""Label and name of the figures that are compared."""
_RUN_CURVES = ("total_rate", "loss", "max_multiplier")


@dataclass(frozen=True, slots=True)
class Compared:
    """A number of both sides.

    Attributes:
        label: What it is: the key of a text, or a role.
        is_role: Whether ``label`` is a role.
        left: The number of the first side; None: not reported.
        right: That of the second side.
    """

    label: str
    is_role: bool
    left: float | None
    right: float | None

    @property
    def difference(self) -> float | None:
        """The second number minus the first one; None: one of them is not reported."""
        return None if self.left is None or self.right is None else self.right - self.left

    @property
    def ratio(self) -> float | None:
        """The second number divided by the first one; None: not known."""
        return self.right / self.left if self.left and self.right is not None else None


async def compare_page(context: Context, request: Request) -> Response:
    """Return the page; without names it only asks for them."""
    viewer, caller = await context.signed_in(request)
    project = request.path_params["project"]
    left, right, kind = _asked(request)
    rows: list[Compared] = []
    facts: list[dict[str, Any]] = []
    if left and right and kind == "run":
        feeds = [await context.feeds.get(viewer, project, name) for name in (left, right)]
        rows = _run_rows(feeds[0], feeds[1])
        facts = [_run_facts(feed) for feed in feeds]
    elif left and right:
        answers = [await context.backend.profile(viewer, project, n) for n in (left, right)]
        curves = [ProfileCurves.of(answer.profile.content) for answer in answers]
        rows = _profile_rows(curves[0], curves[1])
        facts = [{"name": short_name(a.profile.name)} for a in answers]
    runs = await context.backend.runs(viewer, project)
    profiles = await context.backend.profiles(viewer, project)
    return context.renderer.page(
        request,
        "compare.html",
        caller=caller,
        project=project,
        left=left,
        right=right,
        kind=kind,
        rows=rows,
        facts=facts,
        names=[short_name(item.name) for item in (runs if kind == "run" else profiles)],
        script_texts=script_texts(Texts(language_of(request))),
    )


async def curves(context: Context, request: Request) -> Response:
    """Return the curves of both sides over the steps of either."""
    viewer, _ = await context.signed_in(request)
    project = request.path_params["project"]
    left, right, kind = _asked(request)
    names = [name for name in (left, right) if name]
    sides: list[tuple[Floats, Floats]] = []
    for name in names:
        if kind == "run":
            feed = await context.feeds.get(viewer, project, name)
            sides.append(_run_curves(feed))
        else:
            answer = await context.backend.profile(viewer, project, name)
            sides.append(_profile_curves(ProfileCurves.of(answer.profile.content)))
    steps = np.unique(np.concatenate([own for own, _ in sides])) if sides else np.zeros(0)
    both = [between_points(own, values, steps) for own, values in sides]
    labels = _RUN_CURVES if kind == "run" else ("unit_rate",)
    data = {
        "kind": kind,
        "names": names,
        "steps": steps.astype(np.int64).tolist(),
        "curves": {
            label: [rounded(values[:, i]) for values in both] for i, label in enumerate(labels)
        },
    }
    return Response(to_json(data), media_type="application/json")


def between_points(own: Floats, values: Floats, steps: Floats) -> Floats:
    """Return curves at some steps, on straight lines between their own points.

    Args:
        own: The steps of the points; of a step that occurs twice, the later point counts.
        values: The curves there, of shape [points, curves]; NaN: a gap.
        steps: The steps, increasing.

    Returns:
        The curves of shape [steps, curves]; NaN in gaps, and before and after all points.
    """
    if not len(own):
        return np.full((len(steps), values.shape[1]), np.nan)
    own, places = np.unique(own[::-1], return_index=True)
    curves = values[::-1][places].T
    found: Floats = np.stack(
        [np.interp(steps, own, curve, left=np.nan, right=np.nan) for curve in curves], axis=1
    )
    return found


def _asked(request: Request) -> tuple[str, str, str]:
    query = request.query_params
    kind = "profile" if query.get("kind") == "profile" else "run"
    return query.get("a", "").strip(), query.get("b", "").strip(), kind


def _run_curves(feed: RunFeed) -> tuple[Floats, Floats]:
    columns = feed.history.columns
    values = np.stack([columns.column(name) for name in _RUN_CURVES], axis=1)
    return aligned_extremes(columns.column("step"), values, _BUCKETS)


def _profile_curves(found: ProfileCurves) -> tuple[Floats, Floats]:
    totals = np.sqrt((found.unit_rates**2).mean(axis=1))
    return aligned_extremes(found.steps, totals[:, None], _BUCKETS)


def _run_facts(feed: RunFeed) -> dict[str, Any]:
    figures = feed.history.figures
    row = RunRow.of(figures.run, datetime.now(UTC))
    return {
        "name": row.run,
        "state": row.state,
        "profile": row.profile,
        "observes_only": figures.observes_only,
        "last_step": row.last_step,
    }


def _run_rows(left: RunFeed, right: RunFeed) -> list[Compared]:
    """Return the newest figures of two runs."""
    figures = [feed.history.figures for feed in (left, right)]
    last = [f.points[-1] if f.points else None for f in figures]
    rows = [
        Compared(label, False, *(getattr(point, name, None) for point in last))
        for label, name in _FIGURES
    ]
    shares = [{row.part: row.share for row in f.role_contributions() if row.part} for f in figures]
    roles = dict.fromkeys([*shares[0], *shares[1]])
    return rows + [Compared(role, True, *(each.get(role) for each in shares)) for role in roles]


def _profile_rows(left: ProfileCurves, right: ProfileCurves) -> list[Compared]:
    """Return the last unit rates of two profiles by role."""
    last = [dict(zip(c.roles, c.unit_rates[-1].tolist(), strict=True)) for c in (left, right)]
    roles = dict.fromkeys([*last[0], *last[1]])
    return [Compared(role, True, *(each.get(role) for each in last)) for role in roles]
