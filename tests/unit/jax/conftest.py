"""Settings of JAX for these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def fast_compilation() -> Iterator[None]:
    """Compile without most optimizations: small models take longer to compile than to train."""
    update: Any = jax.config.update
    update("jax_disable_most_optimizations", True)
    yield
    update("jax_disable_most_optimizations", False)
