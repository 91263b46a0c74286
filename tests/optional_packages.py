"""Packages that may be missing, and that take seconds to import."""

from __future__ import annotations

from typing import Any

import pytest


class OptionalPackage:
    """A package that is imported when a test first uses it; the test is skipped if it is missing.

    Every process that collects the tests imports what stands at the top of a module.

    Args:
        name: Name of the package.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for some in everything that a module holds
            raise AttributeError(attribute)
        package = pytest.importorskip(self._name, reason=f"needs the package {self._name}")
        return getattr(package, attribute)
