"""Checks the package that an integration needs, when the integration is imported."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager

from fslr.optional_dependencies import install_command


@contextmanager
def required(package: str, minimum: str, *, extra: str) -> Iterator[None]:
    """Return a context for imports of a package that may be missing, or too old.

    Args:
        package: Name of the distribution, such as ``transformers``.
        minimum: The first version that is supported, such as ``5.0``.
        extra: The extra that installs it.

    Raises:
        ImportError: It is not installed, or its version is below the minimum.
    """
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            f"this integration needs {package} {minimum} or newer: {install_command(extra)}"
        ) from error
    if _release(found) < _release(minimum):
        raise ImportError(
            f"{package} {found} is installed, and this integration needs {minimum} or newer: "
            f"{install_command(extra)}"
        )
    yield


def _release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (5, 24) for ``5.24.0.dev0``."""
    leading = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(number) for number in leading.group().split(".")] if leading else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
