"""The table of optimizers, rendered from the stored figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import table

_ACTING = ("learning rates", "update")


def optimizers(figures: dict[str, Any]) -> str:
    """Return on which optimizers multipliers act, and where."""
    packages: dict[str, dict[str, Any]] = figures["packages"]
    counted = [each for found in packages.values() for each in found["optimizers"]]
    tried = [each for each in counted if each["where"] != "not tried"]
    acting = [each for each in tried if each["where"] in _ACTING]
    refused = [each for each in tried if each["where"] == "refused"]
    wrong = [each for each in tried if each["where"] == "wrong"]
    unjudged = [each for each in tried if each["where"] == "not judged"]
    largest = max(each["deviation"] for each in acting)
    late = [each["name"] for each in acting if each["starts_late"]]
    unmeasured = [each["name"] for each in acting if not each["measured"]]
    total = (
        f"Of {len(counted)} classes, {len(tried)} train a small character model on one CPU for "
        f"{figures['steps']} steps. Multipliers act on {len(acting)} of them; steps are at most "
        f"{largest:.1%} from what they should be. Refused: {len(refused)}. Not right: "
        f"{len(wrong)}. Take too long to be judged: {len(unjudged)}."
    )
    parts = [
        total,
        _summary(packages),
        _list("Not right", packages, "wrong"),
        _list("Not judged", packages, "not judged"),
        _list("Refused by `attach`", packages, "refused"),
        _list("Not tried", packages, "not tried"),
    ]
    if late:
        parts.append(
            "Scaled from the second step on, because the first moves nothing, or a correction of "
            f"it would not last: {_names(list(dict.fromkeys(late)))}."
        )
    if unmeasured:
        parts.append(f"Without unit rates: {_names(unmeasured)}.")
    return "\n\n".join(part for part in parts if part)


def _summary(packages: dict[str, dict[str, Any]]) -> str:
    rows = []
    for package, found in packages.items():
        heading = f"`{package}` {found['version'] or ''}".strip()
        if found["missing"]:
            rows.append((heading, found["missing"], ""))
            continue
        for where in _ACTING:
            names = [each["name"] for each in found["optimizers"] if each["where"] == where]
            if names:
                rows.append((heading, where, _names(names)))
    return table(("package", "multipliers act on", "optimizers"), rows)


def _list(title: str, packages: dict[str, dict[str, Any]], where: str) -> str:
    """Return a table of the optimizers with an outcome, one row for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for package, found in packages.items():
        for each in found["optimizers"]:
            if each["where"] == where:
                reason = _short(each["reason"].replace(each["name"], "it"))
                by_reason.setdefault((package, reason), []).append(each["name"])
    if not by_reason:
        return ""
    rows = (
        (f"`{package}`", _names(names), reason) for (package, reason), names in by_reason.items()
    )
    return table(("package", title.lower(), "reason"), rows)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def _short(reason: str, limit: int = 200) -> str:
    """Return a reason in one line of a table."""
    return reason if len(reason) <= limit else reason[: limit - 4].rsplit(" ", 1)[0] + " ..."
