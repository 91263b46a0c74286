"""A run's own metrics: their names and limits, which clients and the service share."""

from __future__ import annotations

import re

MAX_METRICS = 100
"""Maximum number of metrics of one run."""
MAX_NAME_LENGTH = 128
"""Maximum length of a metric's name, in characters."""
MAX_REPORTS = 1_000
"""Maximum number of reports in one request."""
MAX_VALUES = 10_000
"""Maximum number of values in one request, over all reports."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN = 40


def name_problem(name: str) -> str:
    """Return what is wrong with a metric's name and what to do; empty: nothing.

    Args:
        name: The name.
    """
    if not name:
        return "the name of a metric is empty; give it one, such as 'val_accuracy'"
    if len(name) > MAX_NAME_LENGTH:
        return (
            f"the metric's name {name[:_SHOWN]!r}... has {len(name)} characters; at most "
            f"{MAX_NAME_LENGTH} are allowed, so shorten it"
        )
    found = _CONTROLS.search(name)
    if found:
        return (
            f"the metric's name {name[:_SHOWN]!r} holds the control character {found[0]!a}; "
            "take it out"
        )
    return ""
