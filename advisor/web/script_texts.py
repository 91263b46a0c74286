"""The texts that the page's scripts show."""

from __future__ import annotations

from advisor.report.texts import Texts
from advisor.web.numbers import to_json

_KEYS = (
    *("step", "rest", "page.table", "page.keys", "page.heat.keys", "page.no_points"),
    *("page.live", "page.lost", "page.reading", "page.failed"),
)


def script_texts(texts: Texts) -> str:
    """Return the texts as JSON."""
    return to_json({key: texts(key) for key in _KEYS}).decode()
