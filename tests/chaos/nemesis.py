"""Injects one fault after the other into its part of a deployment."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Sequence

from tests.chaos.faults import Fault
from tests.chaos.history import Recorder


class Nemesis:
    """Works through its kinds of faults in a random order, all of them before one comes again.

    Args:
        name: Whose part it harms.
        faults: Its faults; no other nemesis may touch what they touch.
        recorder: Where faults are written down.
        seed: Where its choices come from.
        pause_s: Least and longest time between two faults, in seconds.
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
        self._chance = random.Random(f"{seed} {name}")
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"nemesis-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the fault under way is healed."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        deck: list[list[Fault]] = []
        while not self._stop.wait(self._chance.uniform(*self._pause_s)):
            if not deck:
                deck = self._chance.sample([*self._kinds.values()], len(self._kinds))
            fault = self._chance.choice(deck.pop())
            try:
                self._recorder.note("fault", fault=type(fault).__name__, target=fault.target)
                fault.inject()
                self._stop.wait(self._chance.uniform(*fault.held_s))
                fault.heal()
                self._recorder.note("healed", fault=type(fault).__name__, target=fault.target)
            except Exception as error:
                self._recorder.note("broken", client=self._name, error=f"{fault}: {error!r}")
                raise
