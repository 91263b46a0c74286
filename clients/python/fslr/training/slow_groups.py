"""What a log says about groups that are measured by a slow route."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fslr.training.summaries import count_of

_log = logging.getLogger("fslr")

_NAMES = 2  # of groups in the line, for each reason


def slow_groups_words(slow: Mapping[str, str], groups: int) -> str:
    """Return one line that says how many groups are slow, and why.

    Args:
        slow: The reason by the name of each slow group; at least one.
        groups: Number of all groups.
    """
    names: dict[str, list[str]] = {}
    for name, reason in slow.items():
        names.setdefault(reason, []).append(name)
    reasons = [
        f"{len(found)} ({', '.join(found[:_NAMES])}{', ...' if len(found) > _NAMES else ''}) "
        f"because {reason}"
        for reason, found in sorted(names.items(), key=lambda item: -len(item[1]))
    ]
    return (
        f"{len(slow)} of {count_of(groups, 'group')} "
        f"{'is' if len(slow) == 1 else 'are'} measured by a slower route, without bias but with "
        f"more noise or time: {'; '.join(reasons)}. slow_groups names them all"
    )


class SlowGroupsLog:
    """Logs how many groups are slow, and again once more of them are.

    Args:
        groups: Number of all groups.
    """

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._logged: set[str] = set()

    def measured(self, slow: Mapping[str, str]) -> None:
        """Log one line after a measurement, if groups are slow that were not before.

        Args:
            slow: The reason by the name of each slow group.
        """
        if not slow.keys() <= self._logged:
            self._logged |= slow.keys()
            _log.info("%s", slow_groups_words(slow, self._groups))
