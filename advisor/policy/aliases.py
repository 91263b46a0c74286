"""The alias table of a profile: how other frameworks spell its groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.policy.errors import InvalidValueError, shown
from advisor.policy.name_patterns import check_count, check_pattern


@dataclass(frozen=True, slots=True)
class GroupAlias:
    """An alternative spelling of a base model's groups.

    Attributes:
        pattern: The alternative spelling: a whole name with ``*`` for a block index and at most one
            ``**`` for any other text, such as ``blocks_*/attn/qkv/kernel``.
        target: The base model's spelling with the same wildcards in the same order, such as
            ``blocks.*.attn.qkv.weight``.
    """

    pattern: str
    target: str


def check_aliases(field: str, aliases: Sequence[GroupAlias]) -> tuple[GroupAlias, ...]:
    """Return the alias table, checked.

    Raises:
        InvalidValueError: There are too many aliases, or one is empty, too long or ambiguous, or
            its two sides have different wildcards.
    """
    check_count(field, len(aliases))
    for i, alias in enumerate(aliases):
        check_pattern(f"{field}[{i}].pattern", alias.pattern)
        check_pattern(f"{field}[{i}].target", alias.target)
        if _wildcards(alias.pattern) != _wildcards(alias.target):
            raise InvalidValueError(
                f"{field}[{i}].target",
                f"{shown(alias.target)} has different wildcards than the pattern "
                f"{shown(alias.pattern)}; write the same ones in the same order",
            )
        if _wildcards(alias.pattern).count("**") > 1:
            raise InvalidValueError(
                f"{field}[{i}].pattern",
                f"{shown(alias.pattern)} has more than one **; write one alias for each case",
            )
    return tuple(aliases)


class AliasTable:
    """Rewrites names into the base model's spelling; the first alias that fits decides.

    Args:
        aliases: The aliases, checked.
    """

    def __init__(self, aliases: Sequence[GroupAlias]) -> None:
        self._rules = [(_pattern(a.pattern), re.split(r"\*+", a.target)) for a in aliases]

    def rewritten(self, name: str) -> str | None:
        """Return the base model's spelling of a name or role, or None if no alias fits."""
        for pattern, pieces in self._rules:
            fitting = pattern.fullmatch(name)
            if fitting:
                filled = [*fitting.groups(), ""]
                return "".join(piece + fill for piece, fill in zip(pieces, filled, strict=True))
        return None


def _wildcards(text: str) -> list[str]:
    return re.findall(r"\*+", text)


def _pattern(pattern: str) -> re.Pattern[str]:
    # A `*` also matches itself, so that the table rewrites given roles too.
    parts = re.split(r"(\*+)", pattern)
    kinds = {"*": r"([0-9]++|\*)", "**": "(.+)"}
    return re.compile("".join(kinds.get(part, re.escape(part)) for part in parts))
