"""Several worker processes behind one port: started, restarted when they die, and stopped together.

The kernel hands each new connection to one of them. Like replicas, they share only Redis.
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

_MODULE = "advisor.server.worker"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_START_TIMEOUT_S = 30.0
STOP_MARGIN_S = 5.0
"""How much longer than it should a worker may take to stop, in seconds."""
_MIN_RESTART_DELAY_S, _MAX_RESTART_DELAY_S = 0.2, 10.0

_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def running_workers(
    settings: Settings, redis_url: str, *, log_json: bool
) -> AsyncIterator[Service]:
    """Run ``settings.workers`` processes while the context lasts.

    Args:
        settings: The settings.
        redis_url: The Redis to use: the embedded one's or the settings'.
        log_json: Whether they log JSON lines.

    Yields:
        The service, once all workers answer.

    Raises:
        ListenError: The port is taken, or a worker cannot start; the message has its reason.
    """
    with (
        _reserved_port(settings) as port,
        tempfile.TemporaryDirectory(prefix="fslr-metrics-") as metrics_dir,
    ):
        # The metrics of all workers are summed and served here.
        changes = {"port": port, "metrics_port": None}
        task = WorkerTask(
            settings=settings.model_copy(update=changes), redis_url=redis_url, log_json=log_json
        )
        workers = [Worker(_MODULE, task, Path(metrics_dir)) for _ in range(settings.workers)]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=metrics_dir)  # type: ignore[no-untyped-call]
        with metrics_served(registry, settings) as metrics_port:
            try:
                async with asyncio.TaskGroup() as starting:
                    for worker in workers:
                        starting.create_task(worker.start())
            except* ListenError as errors:
                await _stop(workers, settings)
                raise errors.exceptions[0] from None
            supervisors = [asyncio.create_task(worker.supervise()) for worker in workers]
            try:
                yield Service(address_of(settings.host, port), port, metrics_port)
            finally:
                for supervisor in supervisors:
                    supervisor.cancel()
                await asyncio.gather(*supervisors, return_exceptions=True)
                await _stop(workers, settings)


async def _stop(workers: list[Worker], settings: Settings) -> None:
    deadline_s = settings.max_stop_s + STOP_MARGIN_S
    await asyncio.gather(*(worker.stop(deadline_s) for worker in workers))


@contextlib.contextmanager
def _reserved_port(settings: Settings) -> Iterator[int]:
    """Hold a free port for the workers to share."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    try:
        with socket.socket(family) as probe:
            probe.bind(address)  # fails if another service listens; sharing the port would not
        reserved = socket.socket(family)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)  # it never listens, so it gets no connections
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address_of(*address)}: {error.strerror}; choose a different --port "
            "(0 takes a free one) or stop the program that holds it"
        ) from error
    with reserved:
        yield int(reserved.getsockname()[1])


class Worker:
    """A worker process, and those that replace it.

    Args:
        module: The module that it runs.
        task: The worker's task.
        metrics_dir: The directory that the worker writes its metrics to; None: nowhere.

    Attributes:
        details: What the worker reported beside being ready, such as its port.
    """

    def __init__(self, module: str, task: WorkerTask, metrics_dir: Path | None = None) -> None:
        self._module = module
        self._metrics_dir = metrics_dir
        self._process: Process | None = None
        self.task = task
        self.details = ""

    @property
    def _environment(self) -> dict[str, str]:
        own = {TASK_VARIABLE: self.task.model_dump_json()}
        if self._metrics_dir is not None:
            own[_METRICS_VARIABLE] = str(self._metrics_dir)
        return {**os.environ, **own}

    async def start(self) -> None:
        """Start the process, and wait until it answers.

        Raises:
            ListenError: The process cannot start; the message has its reason.
        """
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=PIPE,  # closes if this process dies, and the worker stops
            stdout=PIPE,
            env=self._environment,
            start_new_session=True,  # an interrupt from the keyboard reaches only this process
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                report = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            report = f"a worker does not answer after {_START_TIMEOUT_S:.0f} s; see its log"
        state, _, self.details = report.partition(" ")
        if state != READY:
            raise ListenError(report or "a worker died while starting; see its log")

    async def supervise(self) -> None:
        """Restart the process whenever it dies."""
        delay_s = _MIN_RESTART_DELAY_S
        while True:
            process = self._process
            if process is not None:
                status = await process.wait()
                self._clear_metrics(process)
                _log.error("a worker died and is restarted", status=status)
            await asyncio.sleep(delay_s)
            try:
                await self.start()
            except ListenError as error:
                _log.error("a worker could not start", reason=str(error))
                delay_s = min(2 * delay_s, _MAX_RESTART_DELAY_S)
            else:
                delay_s = _MIN_RESTART_DELAY_S

    async def stop(self, deadline_s: float) -> None:
        """Stop the process as an operator would, and kill it after ``deadline_s`` seconds."""
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
        self._clear_metrics(process)

    def _clear_metrics(self, process: Process) -> None:
        """Remove a dead process's gauges, such as its open calls; its counters stay."""
        if self._metrics_dir is not None:
            mark_process_dead(process.pid, str(self._metrics_dir))  # type: ignore[no-untyped-call]
