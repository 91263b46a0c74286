"""The table that explains multipliers and settings."""

from __future__ import annotations

import re

import pytest

from fslr.training.explanation import explanation
from fslr.training.group_advice import GroupAdvice
from fslr.training.roles import roles_of
from fslr.training.setting_factors import SettingFactors

LAYER = "base_model.model.transformer.encoder.layers.{}.self_attention.query_key_value.weight"


def advice(multiplier: float, outcome: str = "matched") -> GroupAdvice:
    factors = SettingFactors(0.0123, 81.3, 0.0124, 1.23, 0.456)
    return GroupAdvice(multiplier, outcome, 1.0, 0.5, 0.25, 5 * multiplier, factors, 0.0246)


def test_a_table_that_fits_has_a_line_for_each_role() -> None:
    known = {
        f"blocks.{i}.weight": GroupAdvice(0.25 * (i + 1), "matched", 1.0, 0.5, None, 0.5)
        for i in range(2)
    }
    assert explanation(known, "a run", roles_of([*known])).splitlines() == [
        "a run",
        "groups               multiplier   recipe  measured  outcome",
        "blocks.*.weight (2)  0.25 to 0.5  -       0.5       matched",
    ]


def test_names_stand_above_their_numbers_if_the_table_is_wider_than_80_columns() -> None:
    outcomes = ["matched", "held zero rate", "at the lower bound"]
    known = {LAYER.format(i): advice(0.0123 * (i + 1), outcomes[i]) for i in range(3)}
    known["lm_head.weight"] = advice(0.0125)
    assert explanation(known, "a run", roles_of([*known])).splitlines() == [
        "a run",
        "groups",
        "  multiplier        recipe  measured         decay  epsilon  1-beta1  1-beta2",
        "  initial  outcome",
        "base_model.model.transformer.encoder.layers.*.self_attention.query_key_value.",
        "    weight (3)",
        "  0.0123 to 0.0369  0.0123  0.0615 to 0.184  81.3   0.0124   1.23     0.456",
        "  0.0246   matched, held zero rate, at the lower bound",
        "lm_head.weight (1)",
        "  0.0125            0.0123  0.0625           81.3   0.0124   1.23     0.456",
        "  0.0246   matched",
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 60])
def test_no_line_is_wider_than_80_columns_and_no_word_is_cut(length: int) -> None:
    outcomes = [f"held for the reason number {i}" for i in range(length)]
    names = [".".join(["part"] * length) + f".{i}" for i in range(length)]
    known = {
        name: advice(1e-4 * 3.7**i, outcome)
        for i, (name, outcome) in enumerate(zip(names, outcomes, strict=True))
    }
    _, *lines = explanation(known, "a run", [f"{names[0][:-1]}*"] * length).splitlines()
    assert max(map(len, lines)) <= 80
    text = re.sub(r"\s+", "", "".join(lines))
    for word in (names[0][:-1] + "*", *outcomes, "0.0123", "81.3", "0.0124", "1.23", "0.456"):
        assert word.replace(" ", "") in text
    low, high = (format(1e-4 * 3.7**i, ".3g") for i in (0, length - 1))
    assert length == 1 or f"{low} to {high}" in "\n".join(lines)
