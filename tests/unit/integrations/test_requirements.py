"""Packages of integrations that are missing or too old are refused with a command."""

from __future__ import annotations

import importlib.metadata

import pytest

from fslr.integrations.requirements import required


def test_a_missing_package_is_refused() -> None:
    with (
        pytest.raises(ImportError, match=r"needs no-such-package 2\.0 or newer: pip"),
        required("no-such-package", "2.0", extra="lightning"),
    ):
        pytest.fail("the imports are reached")


@pytest.mark.parametrize(
    ("found", "is_old"),
    [("4.57.1", True), ("5.0.0.dev0", False), ("5", False), ("10.1", False), ("5.0rc1", False)],
)
def test_versions_are_compared_by_their_numbers(
    found: str, *, is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: found)
    if is_old:
        with (
            pytest.raises(
                ImportError, match=r"transformers 4\.57\.1 is installed, and .* needs 5\.0 or newer"
            ),
            required("transformers", "5.0", extra="transformers"),
        ):
            pytest.fail("the imports are reached")
        return
    with required("transformers", "5.0", extra="transformers"):
        pass
