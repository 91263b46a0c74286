"""The page of a run: its figures, its curves, and its groups on demand."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from advisor.report import sentences
from advisor.report.recipe_sentences import recipe_sentences, role_verdict
from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts
from advisor.web.charts import run_charts, run_curves
from advisor.web.context import Context
from advisor.web.errors import BadQueryError
from advisor.web.numbers import to_json
from advisor.web.rendering import language_of
from advisor.web.run_feed import RunFeed
from advisor.web.script_texts import script_texts
from fslr.errors import UnavailableError

_MIN_PIXELS, _MAX_PIXELS = 50, 2_000
_MAX_GROUPS, _MAX_ROLES = 500, 40
_FIGURES_S, _CURVES_S = 5.0, 1.0  # between two versions for all pages of a run


async def run_page(context: Context, request: Request) -> Response:
    """Return the page of a run."""
    viewer, caller = await context.signed_in(request)
    project, run = request.path_params["project"], request.path_params["run"]
    feed = await context.feeds.begin(viewer, project, run)
    texts = Texts(language_of(request))

    async def content() -> dict[str, Any]:
        await feed.opened()
        await _refresh(feed)
        charts = run_charts(texts)
        return {"script_texts": script_texts(texts), "charts": charts, **_values(feed, texts)}

    return context.renderer.page_in_parts(
        request, "run.html", content, caller=caller, project=project, run_id=run
    )


async def figures(context: Context, request: Request) -> Response:
    """Return the part of the page that changes with each measurement."""
    feed = await context.feed(request)
    await _refresh(feed)
    language = language_of(request)

    def make() -> bytes:
        return context.renderer.render(
            "_live_parts.html",
            language,
            project=request.path_params["project"],
            **_values(feed, Texts(language)),
        ).encode()

    return await feed.parts.answer(
        request, language, lambda: feed.version, make, "text/html", period_s=_FIGURES_S
    )


async def groups(context: Context, request: Request) -> Response:
    """Return a table of the groups of a role or block in the last measurement.

    Raises:
        BadQueryError: Neither a role nor a block is given.
    """
    feed = await context.feed(request)
    role, block = request.query_params.get("role", ""), request.query_params.get("block", "")
    if not role and not block:
        raise BadQueryError("give a role or a block, such as ?block=blocks.3")
    blocks = feed.history.columns.members_of_block(block)
    is_known = bool(blocks) or not block
    rows = feed.history.figures.recommended_groups(role, blocks) if is_known else []
    text = context.renderer.render(
        "_groups.html",
        language_of(request),
        rows=rows[:_MAX_GROUPS],
        count=len(rows),
        chosen=role or block,
        step=feed.history.figures.points[-1].step if rows else 0,
        observes_only=feed.history.figures.observes_only,
    )
    return HTMLResponse(text)


async def curves(context: Context, request: Request) -> Response:
    """Return the curves of a run, with as many points as a chart has pixels."""
    feed = await context.feed(request)
    pixels = _pixels(request)

    def make() -> bytes:
        return to_json(_curves(feed, pixels))

    key = f"curves {pixels}"
    return await feed.parts.answer(
        request, key, lambda: feed.version, make, "application/json", period_s=_CURVES_S
    )


async def _refresh(feed: RunFeed) -> None:
    """Bring the run's summary up to date; without the service, what is known stays."""
    with contextlib.suppress(UnavailableError):
        await feed.refresh_summary()


def _pixels(request: Request) -> int:
    text = request.query_params.get("pixels", "600")
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise BadQueryError(f"pixels={text[:20]!r} is not a number of pixels, such as 600")
    # Steps of 100, so that windows of similar sizes share one answer.
    return min(max(-(-int(text) // 100) * 100, _MIN_PIXELS), _MAX_PIXELS)


def _curves(feed: RunFeed, pixels: int) -> dict[str, Any]:
    return {
        "last_id": feed.history.columns.last_id,
        "shape": feed.history.shape,
        "complete": feed.complete,
        "measurements": len(feed.history.columns),
        "charts": run_curves(feed.history.columns, pixels),
    }


def _values(feed: RunFeed, texts: Texts) -> dict[str, Any]:
    """Return what the templates show of a run."""
    figures = feed.history.figures
    contributions = figures.role_contributions()
    return _recipe_values(figures, texts) | {
        "feed": feed,
        "figures": figures,
        "run": figures.row(datetime.now(UTC)),
        "opening": figures.run.opening,
        "point": figures.points[-1] if figures.points else None,
        "total_text": sentences.total_change_text(figures.points, texts),
        "contributions": contributions,
        "contributions_text": sentences.contributions_text(
            contributions, min(len(figures.points), 10), texts
        ),
        "recommended_text": sentences.joined(
            [
                sentences.recommended_text(figures, texts),
                sentences.learning_rates_text(figures, texts),
            ],
            texts,
        ),
        "beside_multipliers": sentences.multipliers_beside_text(figures, texts),
        "recommended": figures.recommended_roles(),
        "cost_text": sentences.cost_text(figures.cost(), texts),
        "changes": figures.changes[-50:],
    }


def _recipe_values(figures: RunFigures, texts: Texts) -> dict[str, Any]:
    """Return what the templates show of the recipe that a run follows."""
    recipe = figures.recipe()
    if recipe is None:
        return {"recipe": None}
    said, warning = recipe_sentences(recipe, texts, observes_only=figures.observes_only)
    shown = sorted(recipe.rows, key=lambda row: row.agrees is not False)[:_MAX_ROLES]
    return {
        "recipe": recipe,
        "recipe_sentences": sentences.joined(said, texts),
        "recipe_warning": warning,
        "recipe_rows": [(row, role_verdict(row, texts)) for row in shown],
    }
