"""Patterns match the given names and no others."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.export.patterns import (
    first_contained,
    globs,
    name_boxes,
    regex,
    substrings,
)

BLOCKS = [f"blocks.{i}.{role}.weight" for i in range(12) for role in ("attn.qkv", "mlp.fc")]
# Characters of regular expressions, globs and numbers; "module.1" and "module11" must not be mixed.
_SEGMENT = st.text(alphabet="ab01*[]?^$|+({-_ ", min_size=1, max_size=4)
_NAMES = st.lists(_SEGMENT, min_size=1, max_size=4).map(".".join)
_BLOCK_NAMES = st.builds(
    "{}.{}.{}".format,
    st.sampled_from(["layers", "a.layers", "h"]),
    st.integers(0, 130),
    st.sampled_from(["w", "attn.w", "attn.w2", "mlp.w"]),
)
_LAYOUTS = st.sets(_NAMES | _BLOCK_NAMES, min_size=2, max_size=40)


def halves(names: set[str], mask: int) -> tuple[set[str], set[str]]:
    """Split names in two; the first half has at least one."""
    ordered = sorted(names)
    first = {name for i, name in enumerate(ordered) if mask >> i & 1} or {ordered[0]}
    return first, names - first


def mutated(name: str) -> list[str]:
    """Return names that differ little from a name."""
    numbers = [re.sub(r"[0-9]+", lambda n: str(int(n[0]) + 1), name, count=1)]
    return [f"{name}x", f"x{name}", f"{name}.0", f"{name}1", name[1:], name.replace(".", "_")] + [
        number for number in numbers if number != name
    ]


@given(_LAYOUTS, st.integers(0, 2**40 - 1))
def test_a_regex_finds_exactly_its_names(names: set[str], mask: int) -> None:
    own, others = halves(names, mask)
    pattern = re.compile(regex(own))
    assert all(pattern.search(name) for name in own)
    others |= {other for name in own for other in mutated(name)} - own
    assert not [name for name in others if pattern.search(name)]


@given(_LAYOUTS, st.integers(0, 2**40 - 1))
def test_globs_match_exactly_their_names_and_each_name_once(names: set[str], mask: int) -> None:
    own, others = halves(names, mask)
    patterns = globs(own)
    for name in own:
        assert sum(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) == 1, name
    others |= {other for name in own for other in mutated(name)} - own
    for name in others:
        assert not [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)], name


@given(st.dictionaries(_NAMES | _BLOCK_NAMES, st.sampled_from("abc"), min_size=1, max_size=30))
def test_substrings_give_each_name_its_value(values: dict[str, str]) -> None:
    ordered = substrings(values, default="a")
    assert {name: first_contained(name, ordered, "a") for name in values} == values


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.b"], r"^a\.b$"),
        (BLOCKS, r"^blocks\.(?:[0-9]|1[01])\.(?:attn\.qkv|mlp\.fc)\.weight$"),
        ([n for n in BLOCKS if "mlp" in n][2:5], r"^blocks\.[2-4]\.mlp\.fc\.weight$"),
        ([f"h.{i}.w" for i in (0, 3, 7, 8)], r"^h\.[0378]\.w$"),
        ([f"h.{i}.w" for i in range(32)], r"^h\.(?:[0-9]|[12][0-9]|3[01])\.w$"),
        (
            [f"s.{i}.b.{j}.w" for i in range(3) for j in range(4)],
            r"^s\.[0-2]\.b\.[0-3]\.w$",
        ),
        (["embed.weight", "head.weight"], r"^(?:embed|head)\.weight$"),
        (["conv.weight", "convt.weight"], r"^(?:conv|convt)\.weight$"),
    ],
)
def test_a_regex_is_short(names: list[str], expected: str) -> None:
    assert regex(names) == expected


def test_names_are_covered_role_by_role_or_block_by_block_whichever_takes_fewer_boxes() -> None:
    shifted = ["h.0.a", "h.1.a", "h.1.b", "h.2.b"]
    assert regex(shifted) == r"^(?:h\.[01]\.a|h\.[12]\.b)$"
    assert len(name_boxes(shifted)) == 2
    by_block = [f"h.{i}.{r}" for i, roles in enumerate(("abc", "ad", "abc")) for r in roles]
    assert regex(by_block) == r"^(?:h\.[02]\.(?:a|b|c)|h\.1\.(?:a|d))$"


def test_globs_of_a_role_are_ranges_of_digits() -> None:
    assert globs([f"h.{i}.w" for i in range(12)]) == ["h.[0-9].w", "h.1[01].w"]
    assert globs(["a[0].*"]) == ["a[[]0].[*]"]


def test_a_role_with_one_value_has_one_substring() -> None:
    values = dict.fromkeys(BLOCKS, "x") | {"head.weight": "y"}
    assert substrings(values, default="y") == [
        (".attn.qkv.weight", "x"),
        (".mlp.fc.weight", "x"),
    ]


def test_an_exception_of_a_role_precedes_it() -> None:
    values = dict.fromkeys(BLOCKS, "x") | {"blocks.1.mlp.fc.weight": "z"}
    ordered = substrings(values, default="y")
    assert ordered[0] == ("blocks.1.mlp.fc.weight", "z")
    assert first_contained("blocks.11.mlp.fc.weight", ordered, "y") == "x"
