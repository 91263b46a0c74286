"""Options of benchmarks reject unknown values and list the known ones."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from benchmarks.options import one_of


@pytest.mark.parametrize("given", ["x", ["a", "x"]])
def test_an_unknown_value_is_rejected(given: Any) -> None:
    with pytest.raises(typer.BadParameter, match=r"'x' is not one of a, b"):
        one_of(["a", "b"])(given)


@pytest.mark.parametrize("given", [None, "b", [], ["b", "a"]])
def test_known_values_are_accepted(given: Any) -> None:
    assert one_of(["a", "b"])(given) == given
