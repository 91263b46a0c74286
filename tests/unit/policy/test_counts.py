from __future__ import annotations

import pytest

from advisor.policy.counts import count_of


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "group", "0 groups"),
        (1, "group", "1 group"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (3, "more role", "3 more roles"),
    ],
)
def test_a_noun_is_singular_after_one(count: int, noun: str, words: str) -> None:
    assert count_of(count, noun) == words
