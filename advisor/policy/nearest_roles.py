"""The nearest role: a stand-in for roles that a profile does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[A-Za-z]+|[0-9]+|\*")
_KINDS = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
_LEAST_SIMILARITY = 0.5
_MOST_COMPARISONS = 1_000_000


def nearest_roles(roles: Iterable[str], base_roles: Sequence[str]) -> dict[str, str]:
    """Return for each role the base role that shares most words with it.

    Similarity is Dice's coefficient of the two sets of words, in [0, 1]. Only roles of the same
    number of indices and of the same kind (the last word: weight, bias, ...; and whether they
    belong to a norm, whose weights are gains) are compared; at a
    similarity of 1/2 or less there is no nearest role. Ties go to the base role that comes first.

    Args:
        roles: The roles to stand in for.
        base_roles: The profile's roles in their order.
    """
    wanted = sorted(set(roles))
    if len(wanted) * len(base_roles) > _MOST_COMPARISONS:
        return {}  # no real model has so many kinds of layers; a hostile layout costs nothing
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
            if similarity > _LEAST_SIMILARITY:
                nearest[role] = candidate
    return nearest


def _words(role: str) -> list[str]:
    return [_KINDS.get(word, word) for word in _WORD.findall(role.lower())]


def _shape(role: str) -> tuple[int, str, bool]:
    words = _words(role)
    of_norm = any(word == "ln" or "norm" in word for word in words)
    return words.count("*"), words[-1] if words else "", of_norm
