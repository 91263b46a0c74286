"""The parts of a run's page that change with each measurement, as a browser gets them."""

from __future__ import annotations

import html
from types import SimpleNamespace
from typing import Any

from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts
from advisor.web.rendering import Renderer
from advisor.web.run_pages import _values


def rendered(figures: RunFigures, language: str = "en") -> str:
    """Return the parts, without the places where names may fold."""
    feed: Any = SimpleNamespace(history=SimpleNamespace(figures=figures), problem="")
    values = _values(feed, Texts(language))
    text = Renderer().render("_live_parts.html", language, project="nlp", **values)
    return html.unescape(text.replace("<wbr>", ""))
