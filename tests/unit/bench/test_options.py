"""Options of benchmarks refuse what they do not know, and say what they do."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from benchmarks.options import one_of


@pytest.mark.parametrize("given", ["x", ["a", "x"]])
def test_what_is_not_known_is_refused(given: Any) -> None:
    with pytest.raises(typer.BadParameter, match=r"'x' is none of a, b"):
        one_of(["a", "b"])(given)


@pytest.mark.parametrize("given", [None, "b", [], ["b", "a"]])
def test_what_is_known_passes(given: Any) -> None:
    assert one_of(["a", "b"])(given) == given
