"""The texts that the page's scripts show."""

from __future__ import annotations

from advisor.report.texts import Texts
from advisor.web.numbers import to_json

_KEYS = (
    *("step", "loss", "learning_rate", "total_rate", "reference", "reference.band", "share"),
    *("relative_error", "linearity_error", "rest"),
    *("total_rate.axis", "learning_rate.axis", "share.axis", "multiplier.axis"),
    *("page.table", "page.live", "page.lost", "page.reading", "page.close", "page.failed"),
    *("page.high_error", "page.loss.axis", "page.error.axis", "page.effective.axis", "page.keys"),
    *("page.no_points", "page.heat.keys", "page.unit_rate.axis", "page.metric.axis"),
)


def script_texts(texts: Texts) -> str:
    """Return the texts as JSON."""
    return to_json({key: texts(key) for key in _KEYS}).decode()
