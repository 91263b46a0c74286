"""Concurrent callers in threads, for the service and its peers alike.

The scripts in ``benchmarks.rpc.peers`` run in other environments, so this module uses only the
standard library.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of a comparison.

    Attributes:
        callers: Number of concurrent callers.
        parameters: Numbers in each answer.
        seconds: Duration.
    """

    callers: int
    parameters: int
    seconds: float

    @property
    def options(self) -> list[str]:
        """The command-line options that :meth:`from_command_line` reads."""
        return [
            *("--callers", str(self.callers)),
            *("--parameters", str(self.parameters)),
            *("--seconds", str(self.seconds)),
        ]

    @staticmethod
    def from_command_line() -> Workload:
        """Return the workload that the options of this process describe."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--callers", type=int, required=True)
        parser.add_argument("--parameters", type=int, required=True)
        parser.add_argument("--seconds", type=float, required=True)
        return Workload(**vars(parser.parse_args()))


def calls_per_second(call: Callable[[int, float], int], workload: Workload) -> float:
    """Return the calls per second of all callers together.

    Args:
        call: Calls repeatedly until a time of ``time.monotonic`` and returns the number of calls,
            given the number of the caller and that time.
        workload: The number of callers and the duration.
    """
    counts: list[int] = []
    begun = time.monotonic()

    def run(number: int) -> None:
        counts.append(call(number, begun + workload.seconds))

    callers = [threading.Thread(target=run, args=(i,)) for i in range(workload.callers)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(counts) / (time.monotonic() - begun)
