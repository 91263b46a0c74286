"""Where trainings run: an advisor service of their own, and processes with one thread each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import fslr
from advisor.local.server import LocalServer
from benchmarks.transfer.training import Trained, Training, run_training, start_worker
from fslr.advisor.v1 import profile_pb2

PROCESSES = 2
THREADS = 1  # of each process


class Bench:
    """Runs trainings side by side, with a service to record for and to be advised by.

    Small models gain little from more threads, so each process has one (``THREADS``).

    Args:
        processes: How many trainings run at a time.
        on_planned: Called with the number of trainings that were asked for.
        on_trained: Called with each training that ended; from any thread.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        *,
        on_planned: Callable[[int], None] = lambda _count: None,
        on_trained: Callable[[Trained], None] = lambda _trained: None,
    ) -> None:
        self._processes = processes
        self._on_planned = on_planned
        self._on_trained = on_trained
        self._closing = ExitStack()
        self.address = ""

    def __enter__(self) -> Self:
        """Start the service and the processes."""
        with ExitStack() as closing:
            self.address = closing.enter_context(LocalServer()).address
            self._client = closing.enter_context(fslr.AdvisorClient(self.address))
            self._pool = ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), initializer=start_worker
            )
            closing.callback(self._pool.shutdown, cancel_futures=True)
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop both."""
        self._closing.close()

    def run(self, trainings: Sequence[Training]) -> list[Trained]:
        """Run trainings and return what came of them, in their order.

        Args:
            trainings: The trainings.
        """
        self._on_planned(len(trainings))
        futures = [self._pool.submit(run_training, training) for training in trainings]
        for future in futures:
            future.add_done_callback(self._tell)
        return [future.result() for future in futures]

    def register(self, profile: str, content: bytes) -> str:
        """Register a profile and return the name of its version.

        Args:
            profile: Its name.
            content: What a training recorded.
        """
        parsed = profile_pb2.ProfileContent.FromString(content)
        return self._client.register_profile(profile, parsed).profile.name

    def content(self, profile: str) -> profile_pb2.ProfileContent:
        """Return what a registered version holds.

        Args:
            profile: The version's name.
        """
        return self._client.get_profile(profile).profile.content

    def _tell(self, future: Future[Trained]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._on_trained(future.result())
