"""The client's roles are the advisor's."""

from __future__ import annotations

import random

import pytest

from advisor.policy import Layout
from advisor.policy.groups import Group
from advisor.policy.name_patterns import compile_templates
from advisor.policy.parameter_names import parse_names
from fslr.advisor.v1 import layout_pb2
from fslr.training.roles import roles_of, roles_of_layout

WORDS = (
    *("", "a", "h", "net", "layer", "layers", "encoder", "cells", "shared_expert", "experts", "x_"),
    *("blocks", "conv_block_", "weight", "weight_", "bias", "Dense_", "stages", "²", "weight_hh_l"),
    *("levels", "Block_", "transformers", "a1b"),
)
TEMPLATES: tuple[list[str], ...] = (
    [],
    [],
    ["blocks.*"],
    ["net.layers*.*/", "layers.*", "a.b*"],
    ["*"],
)


def a_name(source: random.Random) -> str:
    """Return a path of words, numbers and numbered words."""
    number = [str(source.randrange(13)) for _ in range(10)]
    words = [source.choice(("", source.choice(WORDS))) for _ in number]
    bare = source.random()
    segments = [w if source.random() < bare else w + n for w, n in zip(words, number, strict=True)]
    return source.choice("./").join(segments[: source.randint(1, 10)])


def test_the_roles_of_any_names_are_those_of_the_advisor() -> None:
    source = random.Random(0)
    found = set()
    for _ in range(1_500):
        names = [a_name(source) for _ in range(source.randrange(4))]
        templates = source.choice(TEMPLATES)
        expected = [parsed.role for parsed in parse_names(names, compile_templates(templates))]
        assert roles_of(names, templates) == expected
        found |= {*expected}
    assert sum(role.count("*") > 1 for role in found) > 100


@pytest.mark.parametrize("templates", [[], ["net.s*"]])
def test_frozen_parameters_and_templates_of_a_layout_count(templates: list[str]) -> None:
    names, frozen = ["net.s1.w", "net.2.w"], ["net.0.mlp.w"]
    message = layout_pb2.Layout(
        groups=[layout_pb2.Group(name=name) for name in names],
        frozen_names=frozen,
        role_templates=templates,
    )
    of_advisor = Layout.of([Group(name) for name in names], templates, frozen).roles
    assert roles_of_layout(message) == [*of_advisor]
    assert of_advisor == (("net.s*.w" if templates else "net.s1.w"), "net.*.w")
