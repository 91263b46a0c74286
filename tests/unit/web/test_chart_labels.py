"""Every chart says what its axes show, and in which unit."""

from __future__ import annotations

import re
from typing import Any

import pytest

from advisor.report.texts import LANGUAGES, Texts
from advisor.web.charts import compared_chart, metric_chart, profile_charts, run_charts
from advisor.web.compare_pages import _PROFILE_CURVES, _RUN_CURVES

_UNIT = re.compile(r"\w.*(?: \(.+\)|\uff08.+\uff09)")  # fullwidth parentheses in Japanese


def specs(texts: Texts) -> dict[str, dict[str, Any]]:
    """Return every kind of chart, by its name."""
    compared = {
        f"compared {curve.name}": compared_chart(["a", "b"], curve.axis, texts, is_log=curve.is_log)
        for curve in (*_RUN_CURVES, *_PROFILE_CURVES)
    }
    return {
        **run_charts(texts),
        **profile_charts(["head.weight"], has_bands=True, texts=texts),
        **compared,
        "metric": metric_chart("auc", texts),
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_axis_has_a_label_with_its_unit(language: str) -> None:
    labels = {
        (name, axis): spec[axis]["label"]
        for name, spec in specs(Texts(language)).items()
        for axis in ("y", "z")
        if axis in spec
    }
    assert len(labels) == 15
    assert [each for each in labels.items() if not _UNIT.fullmatch(each[1])] == []
