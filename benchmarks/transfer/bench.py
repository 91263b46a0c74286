"""The bench that trainings run on: an advisor service and processes with one thread each."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

import fslr
from advisor.local.server import LocalServer
from benchmarks.transfer.finished import FinishedTrainings
from benchmarks.transfer.training import Trained, Training, run_training, start_worker
from fslr.advisor.v1 import profile_pb2

PROCESSES = 2
THREADS = 1  # of each process


class Bench:
    """Runs trainings in parallel, with a service that stores profiles and advises.

    Each process has one thread (``THREADS``), since small models gain little from more.

    Args:
        processes: Number of parallel trainings.
        finished: Results of finished trainings, which are not run again; new ones are added. None
            to run all.
        on_planned: Called with the number of trainings of each request.
        on_trained: Called with the result of each training, from any thread.

    Attributes:
        address: ``host:port`` of the service.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        *,
        finished: FinishedTrainings | None = None,
        on_planned: Callable[[int], None] = lambda _count: None,
        on_trained: Callable[[Trained], None] = lambda _trained: None,
    ) -> None:
        self._processes = processes
        self._finished = finished
        self._digests: dict[str, str] = {}  # of the contents of registered profiles, by name
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
        known = [
            None if self._finished is None else self._finished.get(training, self._digests)
            for training in trainings
        ]
        self._on_planned(known.count(None))
        found: list[Trained | Future[Trained]] = []
        for training, trained in zip(trainings, known, strict=True):
            if trained is not None:
                found.append(trained)
                continue
            future = self._pool.submit(run_training, training)
            future.add_done_callback(partial(self._end, training))
            found.append(future)
        return [each.result() if isinstance(each, Future) else each for each in found]

    def register(self, profile: str, content: bytes) -> str:
        """Register a profile and return the name of its version.

        Args:
            profile: Its name.
            content: A recorded profile, serialized.
        """
        parsed = profile_pb2.ProfileContent.FromString(content)
        name = self._client.register_profile(profile, parsed).profile.name
        self._digests[name] = hashlib.sha256(content).hexdigest()
        return name

    def content(self, profile: str) -> profile_pb2.ProfileContent:
        """Return the content of a registered version.

        Args:
            profile: The version's name.
        """
        return self._client.get_profile(profile).profile.content

    def _end(self, training: Training, future: Future[Trained]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        if self._finished is not None:
            self._finished.put(training, future.result(), self._digests)
        self._on_trained(future.result())
