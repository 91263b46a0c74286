"""The bench that trainings run on: an advisor service and processes with one thread each."""

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
    """Runs trainings in parallel, with a service that stores profiles and advises.

    Each process has one thread (``THREADS``), since small models gain little from more.

    Args:
        processes: Number of parallel trainings.
        on_planned: Called with the number of trainings of each request.
        on_trained: Called with the result of each training, from any thread.

    Attributes:
        address: ``host:port`` of the service.
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
        self._exit_stack = ExitStack()
        self.address = ""

    def __enter__(self) -> Self:
        """Start the service and the processes."""
        with ExitStack() as stack:
            self.address = stack.enter_context(LocalServer()).address
            self._client = stack.enter_context(fslr.AdvisorClient(self.address))
            self._pool = ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), initializer=start_worker
            )
            stack.callback(self._pool.shutdown, cancel_futures=True)
            self._exit_stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the processes and the service."""
        self._exit_stack.close()

    def run(self, trainings: Sequence[Training]) -> list[Trained]:
        """Run trainings and return their results, in order.

        Args:
            trainings: The trainings.
        """
        self._on_planned(len(trainings))
        futures = [self._pool.submit(run_training, training) for training in trainings]
        for future in futures:
            future.add_done_callback(self._report)
        return [future.result() for future in futures]

    def register(self, profile: str, content: bytes) -> str:
        """Register a profile and return the name of its version.

        Args:
            profile: Its name.
            content: A recorded profile, serialised.
        """
        parsed = profile_pb2.ProfileContent.FromString(content)
        return self._client.register_profile(profile, parsed).profile.name

    def content(self, profile: str) -> profile_pb2.ProfileContent:
        """Return the content of a registered version.

        Args:
            profile: The version's name.
        """
        return self._client.get_profile(profile).profile.content

    def _report(self, future: Future[Trained]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._on_trained(future.result())
