"""Settings of JAX for these tests."""

from __future__ import annotations

from typing import Any

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def fast_compilation(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile small models quickly, and each of them once.

    They take longer to compile than to train, and many tests train the same ones.
    """
    update: Any = jax.config.update
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        update(name, value)
