"""The checks of a parametrization in sentences, for terminal, page and CI alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from advisor.report.check import CheckRow, Status, Value
from advisor.report.sentences import comma, joined
from advisor.report.texts import Texts

_MAX_LISTED = 3


def check_finding(row: CheckRow, texts: Texts) -> str:
    """Return what a check found, or what it needs, in one or two sentences with numbers.

    Args:
        row: The check's result.
        texts: The language's texts.
    """
    if row.status is Status.NOT_ENOUGH_DATA:
        return _sentence(row, "needs", texts)
    found = [_sentence(row, "found", texts)]
    if row.status is Status.FAIL:
        found.append(_sentence(row, "failed", texts))
    return joined(found, texts)


def check_remedy(row: CheckRow, texts: Texts) -> str:
    """Return what to do about a failed check, in a sentence; empty: it did not fail.

    Args:
        row: The check's result.
        texts: The language's texts.
    """
    return _sentence(row, "remedy", texts) if row.status is Status.FAIL else ""


def check_counts(rows: Sequence[CheckRow], texts: Texts) -> str:
    """Return how many checks passed and failed, in a sentence.

    Args:
        rows: The sheet.
        texts: The language's texts.
    """
    counts = Counter(row.status for row in rows)
    return texts(
        "check.counts",
        passed=counts[Status.PASS],
        failed=counts[Status.FAIL],
        short=counts[Status.NOT_ENOUGH_DATA],
    )


def _sentence(row: CheckRow, part: str, texts: Texts) -> str:
    values = {name: _in_words(value, texts) for name, value in row.values.items()}
    return texts(f"check.{row.check}.{part}", **values)


def _in_words(value: Value, texts: Texts) -> str | int:
    """Return a value for a sentence; of a long list only the first names."""
    if not isinstance(value, tuple):
        return value
    names = comma(texts).join(value[:_MAX_LISTED])
    more = len(value) - _MAX_LISTED
    return texts("check.more", names=names, count=more) if more > 0 else names
