"""Nearest roles: stand-ins for roles that a profile does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[A-Za-z]+|[0-9]+|\*")
_KINDS = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
_MIN_SIMILARITY = 0.5
_MAX_COMPARISONS = 1_000_000


def nearest_roles(roles: Iterable[str], base_roles: Sequence[str]) -> dict[str, str]:
    """Return for each role the base role that shares the most words with it.

    Similarity is Dice's coefficient of the two sets of words, in [0, 1]. Only roles with the same
    number of indices and of the same kind are compared. The kind is the last word (weight, bias,
    ...) and whether the role belongs to a norm, whose weights are gains. A role has no nearest role
    if no similarity exceeds 1/2. Ties go to the base role that comes first.

    Args:
        roles: The roles to stand in for.
        base_roles: The profile's roles in their order.
    """
    wanted = sorted(set(roles))
    if len(wanted) * len(base_roles) > _MAX_COMPARISONS:
        return {}  # no real model has so many kinds of layers; a hostile layout must not cost time
    known = [(role, frozenset(_words(role)), _shape(role)) for role in base_roles]
    nearest: dict[str, str] = {}
    for role in wanted:
        words, shape = frozenset(_words(role)), _shape(role)
        scored = [
            (2 * len(words & other) / (len(words) + len(other)), candidate)
            for candidate, other, other_shape in known
            if other_shape == shape
        ]
        if scored:
            similarity, candidate = max(scored, key=lambda pair: pair[0])
            if similarity > _MIN_SIMILARITY:
                nearest[role] = candidate
    return nearest


def _words(role: str) -> list[str]:
    return [_KINDS.get(word, word) for word in _WORD.findall(role.lower())]


def _shape(role: str) -> tuple[int, str, bool]:
    words = _words(role)
    of_norm = any(word == "ln" or "norm" in word for word in words)
    return words.count("*"), words[-1] if words else "", of_norm
