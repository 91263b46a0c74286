"""Patterns of parameter names: role templates, and the checks they share with group aliases."""

from __future__ import annotations

import re
from collections.abc import Sequence

from advisor.policy.control_characters import check_controls
from advisor.policy.errors import InvalidValueError, shown

MAX_PATTERNS = 256
MAX_PATTERN_CHARACTERS = 512


def check_templates(field: str, templates: Sequence[str]) -> tuple[str, ...]:
    """Return the role templates, checked.

    Raises:
        InvalidValueError: There are too many, or one is too long, ambiguous or without ``*``.
    """
    check_count(field, len(templates))
    for i, template in enumerate(templates):
        check_pattern(f"{field}[{i}]", template)
        if "*" not in template or "**" in template:
            what = "**, which is not an index" if "**" in template else "no *"
            raise InvalidValueError(
                f"{field}[{i}]",
                f"{shown(template)} has {what}; write the beginning of the names with * in place "
                "of each block index, such as encoder.s*.u*",
            )
    return tuple(templates)


def check_count(field: str, count: int) -> None:
    """Refuse too many templates or aliases.

    Raises:
        InvalidValueError: There are more than ``MAX_PATTERNS``.
    """
    if count > MAX_PATTERNS:
        raise InvalidValueError(field, f"{count} entries, but at most {MAX_PATTERNS} are allowed")


def check_pattern(field: str, text: str) -> None:
    """Refuse a pattern that is empty, too long or ambiguous.

    Raises:
        InvalidValueError: The length is out of its range, or the pattern has a control character,
            ``***`` or a digit next to a ``*``.
    """
    if not 1 <= len(text) <= MAX_PATTERN_CHARACTERS:
        raise InvalidValueError(
            field, f"{len(text)} characters, but 1 to {MAX_PATTERN_CHARACTERS} are needed"
        )
    check_controls(field, text)
    if "***" in text:
        raise InvalidValueError(
            field, f"{shown(text)} has ***; write * for an index or ** for any text"
        )
    # Each * then ends where its digits end, and matching takes time proportional to the name.
    if re.search(r"\*[0-9]|[0-9]\*", text):
        raise InvalidValueError(
            field, f"{shown(text)} has a digit next to a *; an index is the whole number"
        )


def compile_templates(templates: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """Return role templates as ``parse_name`` takes them; do this once for a layout."""
    bodies = [
        re.escape(template.rstrip("./")).replace(r"\*", "([0-9]++)") for template in templates
    ]
    return tuple(re.compile(rf"{body}(?=[./]|$)") for body in bodies)
