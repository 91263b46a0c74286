"""The page of a profile: its curves, where it comes from, its versions, and who uses it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from advisor.report.profile_curves import ProfileCurves
from advisor.report.profiles import ProfileRow, profile_facts
from advisor.report.run_columns import MAX_ROLES, aligned_extremes
from advisor.report.runs import RunRow
from advisor.report.texts import Texts
from advisor.report.warning_texts import warning_text
from advisor.report.words import short_name
from advisor.web.charts import Spec, curve_data, profile_charts
from advisor.web.context import Context
from advisor.web.rendering import language_of
from advisor.web.script_texts import script_texts

_BUCKETS = 200
_NOW = ("training", "two jobs")


async def profile_page(context: Context, request: Request) -> Response:
    """Return the page of a version of a profile."""
    viewer, caller = await context.signed_in(request)
    project, name = request.path_params["project"], request.path_params["profile"]
    answer = await context.backend.profile(viewer, project, name)
    now = datetime.now(UTC)
    runs = [RunRow.of(run, now) for run in await context.backend.runs(viewer, project)]
    own = short_name(answer.profile.name).partition("@")[0]
    users = [run for run in runs if run.profile.partition("@")[0] == own]
    texts = Texts(language_of(request))
    return context.renderer.page(
        request,
        "profile.html",
        caller=caller,
        project=project,
        profile=ProfileRow.of(answer.profile),
        version=answer.profile.version,
        versions=sorted(answer.versions, reverse=True),
        aliases=answer.aliases,
        facts=[fact for fact in profile_facts(answer, texts) if fact.key != "warnings"],
        guideline=answer.profile.content.docs,
        warnings=[warning_text(message, texts) for message in answer.profile.warnings],
        users=[run for run in users if run.state in _NOW],
        earlier_users=[run for run in users if run.state not in _NOW],
        charts=_charts(ProfileCurves.of(answer.profile.content), texts),
        script_texts=script_texts(texts),
    )


def _charts(found: ProfileCurves, texts: Texts) -> dict[str, tuple[Spec, dict[str, Any]]]:
    """Return the charts of the roles with the largest unit rates, and their data."""
    order = np.argsort(-found.unit_rates.max(axis=0), kind="stable")[:MAX_ROLES]
    kept = np.sort(order)
    rates = found.unit_rates[:, kept]
    series = [np.where(rates > 0, rates, np.nan), found.learning_rates[:, None]]
    if found.spreads is not None:
        factors = np.exp(found.spreads[:, kept])
        series += [series[0] / factors, series[0] * factors]
    steps, values = aligned_extremes(found.steps, np.concatenate(series, axis=1), _BUCKETS)
    width = len(kept)
    roles = [found.roles[i] for i in kept]
    specs = profile_charts(roles, has_bands=found.spreads is not None, texts=texts)
    rates = np.delete(values, width, axis=1)
    return {
        "unit_rates": (specs["unit_rates"], curve_data(steps, rates)),
        "schedule": (specs["schedule"], curve_data(steps, values[:, [width]])),
    }
