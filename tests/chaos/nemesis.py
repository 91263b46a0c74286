"""Injects one fault after another into a part of a deployment."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Sequence

from tests.chaos.faults import Fault
from tests.chaos.history import Recorder


class Nemesis:
    """Injects its kinds of faults in random order, all of them before any is repeated.

    Args:
        name: The name of the part.
        faults: Its faults; no other nemesis may have faults of the same parts.
        recorder: Records the faults.
        seed: Seed of its random choices.
        pause_s: Minimum and maximum time between two faults, in seconds.
    """

    def __init__(
        self,
        name: str,
        faults: Sequence[Fault],
        recorder: Recorder,
        *,
        seed: int,
        pause_s: tuple[float, float],
    ) -> None:
        self._name, self._recorder = name, recorder
        self._kinds: dict[type[Fault], list[Fault]] = defaultdict(list)
        for fault in faults:
            self._kinds[type(fault)].append(fault)
        self._rng = random.Random(f"{seed} {name}")
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"nemesis-{name}", daemon=True)

    def start(self) -> None:
        """Start to inject faults."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current fault is healed."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        deck: list[list[Fault]] = []
        while not self._stop.wait(self._rng.uniform(*self._pause_s)):
            if not deck:
                deck = self._rng.sample([*self._kinds.values()], len(self._kinds))
            fault = self._rng.choice(deck.pop())
            try:
                self._recorder.note("fault", fault=type(fault).__name__, target=fault.target)
                fault.inject()
                self._stop.wait(self._rng.uniform(*fault.held_s))
                fault.heal()
                self._recorder.note("healed", fault=type(fault).__name__, target=fault.target)
            except Exception as error:
                self._recorder.note("broken", client=self._name, error=f"{fault}: {error!r}")
                raise
