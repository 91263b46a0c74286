"""Several processes behind one port: started together, started again when they die, ended together.

The kernel hands each new connection to one of them. They share nothing but Redis, like replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from advisor.server.bootstrap import Service
from advisor.server.listening import ListenError, address_of, metrics_served
from advisor.server.settings import Settings
from advisor.server.worker import READY, TASK_VARIABLE, WorkerTask

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_START_TIMEOUT_S = 30.0
_STOP_MARGIN_S = 5.0  # beyond what a worker may take
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0  # before a worker that died is started again

_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def running_workers(
    settings: Settings, redis_url: str, *, log_json: bool
) -> AsyncIterator[Service]:
    """Run ``settings.workers`` processes as long as the context lasts.

    Args:
        settings: The settings.
        redis_url: The Redis to use, the embedded one's or the settings'.
        log_json: Whether they log JSON lines.

    Yields:
        The service, answering.

    Raises:
        ListenError: The port is taken, or a worker cannot start, with its own reason.
    """
    with (
        _reserved(settings) as port,
        tempfile.TemporaryDirectory(prefix="fslr-metrics-") as metrics_dir,
    ):
        # Metrics are added up over all workers, and served here.
        changes = {"port": port, "metrics_port": None}
        task = WorkerTask(
            settings=settings.model_copy(update=changes), redis_url=redis_url, log_json=log_json
        )
        workers = [_Worker(task, Path(metrics_dir)) for _ in range(settings.workers)]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=metrics_dir)  # type: ignore[no-untyped-call]
        with metrics_served(registry, settings) as metrics_port:
            try:
                async with asyncio.TaskGroup() as starting:
                    for worker in workers:
                        starting.create_task(worker.start())
            except* ListenError as errors:
                await _end(workers, settings)
                raise errors.exceptions[0] from None
            watching = [asyncio.create_task(worker.keep()) for worker in workers]
            try:
                yield Service(address_of(settings.host, port), port, metrics_port)
            finally:
                for watch in watching:
                    watch.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
                await _end(workers, settings)


async def _end(workers: list[_Worker], settings: Settings) -> None:
    deadline_s = settings.longest_stop_s + _STOP_MARGIN_S
    await asyncio.gather(*(worker.end(deadline_s) for worker in workers))


@contextlib.contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """Hold a port that nobody else listens on, for the workers to share."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    place = (settings.host, settings.port)
    try:
        with socket.socket(family) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)  # fails where another service listens, which sharing would not
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(place)  # and never listened on: it gets no connections
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address_of(*place)}: {error.strerror}; choose a different --port (0 "
            "takes a free one) or stop the program that holds it"
        ) from error
    with held:
        yield int(held.getsockname()[1])


class _Worker:
    """One process, and its successors.

    Args:
        task: What it has to do.
        metrics_dir: Where it writes its metrics.
    """

    def __init__(self, task: WorkerTask, metrics_dir: Path) -> None:
        self._environment = {
            **os.environ,
            TASK_VARIABLE: task.model_dump_json(),
            _METRICS_VARIABLE: str(metrics_dir),
        }
        self._metrics_dir = metrics_dir
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process, and wait until it answers.

        Raises:
            ListenError: It does not; with its own reason.
        """
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "advisor.server.worker"),
            stdin=PIPE,  # should this process die, it closes, and the worker stops
            stdout=PIPE,
            env=self._environment,
            start_new_session=True,  # an interrupt from the keyboard is ours to pass on
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                said = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            said = f"a worker does not answer after {_START_TIMEOUT_S:.0f} s; its log says why"
        if said != READY:
            raise ListenError(said or "a worker died at its start; its log says why")

    async def keep(self) -> None:
        """Start the process again whenever it dies."""
        pause_s = _FIRST_PAUSE_S
        while True:
            process = self._process
            if process is not None:
                status = await process.wait()
                self._forget(process)
                _log.error("a worker died and is started again", status=status)
            await asyncio.sleep(pause_s)
            try:
                await self.start()
            except ListenError as error:
                _log.error("a worker could not start", reason=str(error))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                pause_s = _FIRST_PAUSE_S

    async def end(self, deadline_s: float) -> None:
        """End the process as an operator would, and kill it after ``deadline_s`` seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(deadline_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        self._forget(process)

    def _forget(self, process: Process) -> None:
        """Leave what a process counted, and take away what it had under way."""
        mark_process_dead(process.pid, str(self._metrics_dir))  # type: ignore[no-untyped-call]
