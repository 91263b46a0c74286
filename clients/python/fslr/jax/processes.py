"""The processes that train one model together, for the exchange with an advisor."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from fslr.training.exchange import OneProcess, Ranks


class Processes:
    """The processes of :func:`jax.distributed.initialize`; the first one talks to the advisor."""

    @property
    def speaks(self) -> bool:
        """Whether this process talks to the advisor."""
        return jax.process_index() == 0

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        """Return the first process's values; all pass the same number of them.

        Args:
            values: The values; they are sent as pairs of float32, which keep float64's precision.
        """
        exact = np.asarray(values, np.float64)
        words = multihost_utils.broadcast_one_to_all(exact.view(np.uint32))
        found: list[float] = np.asarray(words, np.uint32).view(np.float64).tolist()
        return found

    def text_from_speaker(self, text: str) -> str:
        """Return the first process's text."""
        own = text.encode()
        (size,) = self.from_speaker([float(len(own))])
        padded = np.frombuffer(own[: int(size)].ljust(int(size)), np.uint8).astype(np.uint32)
        if not size:
            return ""
        received = multihost_utils.broadcast_one_to_all(padded)
        return bytes(np.asarray(received).astype(np.uint8)).decode()


def ranks() -> Ranks:
    """Return the processes that train together; usually there is one."""
    return Processes() if jax.process_count() > 1 else OneProcess()
