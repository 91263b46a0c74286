"""``advisor serve`` and ``advisor health``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import grpc
import structlog
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    Address,
    Json,
    client,
    describe_setting_error,
    fail,
    print_json,
    say,
)
from advisor.cli.setting_options import with_setting_options
from advisor.errors import StoreUnavailableError
from advisor.observability.logs import configure_logging
from advisor.runtime.event_loop import run_loop, stop_at_eof
from advisor.server.bootstrap import Service, running_service
from advisor.server.listening import ListenError
from advisor.server.readiness import LIVENESS, READINESS
from advisor.server.settings import Settings
from advisor.server.web import running_web
from advisor.server.worker import START_ERRORS, start_problem
from advisor.server.workers import running_workers
from advisor.store.redis.embedded import EmbeddedRedis, EmbeddedRedisError
from fslr.client.status_errors import service_error

_HEALTH_DEADLINE_S = 3.0
_WATCH_S = 0.5

_log = structlog.get_logger()


@with_setting_options()
def serve(
    *,
    given: dict[str, Any],
    address_file: Annotated[
        Path | None,
        typer.Option(help="File to write host:port to once the service is serving."),
    ] = None,
    until_eof: Annotated[
        bool,
        typer.Option(
            "--until-eof", help="Stop when standard input is closed, as when the parent exits."
        ),
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write the log as JSON, one object per line.")
    ] = False,
) -> None:
    """Run the advisor service.

    Without --redis-url it starts an embedded Redis, whose data survive restarts and crashes.
    """
    configure_logging(as_json=log_json)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        fail(describe_setting_error(error))
    try:
        with _embedded(settings) as embedded:
            redis_url = embedded.url if embedded else settings.redis_url or ""
            if settings.workers == 1:
                service = running_service(settings, redis_url)
            else:
                service = running_workers(settings, redis_url, log_json=log_json)
            web = running_web(settings, redis_url, log_json=log_json)
            run_loop(
                _serve(
                    settings, service, web, embedded, address_file=address_file, until_eof=until_eof
                )
            )
    except EmbeddedRedisError as error:
        fail(str(error))
    except (*START_ERRORS, StoreUnavailableError) as error:
        fail(start_problem(error, settings))


def _embedded(settings: Settings) -> contextlib.AbstractContextManager[EmbeddedRedis | None]:
    if settings.redis_url is not None:
        return contextlib.nullcontext()
    return EmbeddedRedis(settings.data_dir)


async def _serve(
    settings: Settings,
    starting: contextlib.AbstractAsyncContextManager[Service],
    starting_web: contextlib.AbstractAsyncContextManager[str | None],
    embedded: EmbeddedRedis | None,
    *,
    address_file: Path | None,
    until_eof: bool,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), stop_at_eof, stop)
    async with starting as service, starting_web as url:
        with _announced(service.address, address_file):
            _log.info(
                "serving",
                address=service.address,
                redis="embedded" if embedded else "external",
                data_dir=str(settings.data_dir) if embedded else None,
                metrics_port=service.metrics_port,
                web=url,
                workers=settings.workers,
                tls=settings.tls is not None,
                authenticates=settings.authenticates,
            )
            await _watch_until(stop, embedded)


async def _watch_until(stop: asyncio.Event, embedded: EmbeddedRedis | None) -> None:
    """Wait until the service is stopped; restart the embedded Redis if it dies."""
    while not stop.is_set():
        if embedded is not None and embedded.revive():
            _log.error("the embedded Redis died and was restarted")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _WATCH_S)


@contextlib.contextmanager
def _announced(address: str, path: Path | None) -> Iterator[None]:
    """Keep the address in a file while the service is serving; the file is written atomically."""
    if path is None:
        yield
        return
    if path.is_dir():
        raise ListenError(f"the address file {path} cannot be written: it is a directory")
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(address, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ListenError(f"the address file {path} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def health(
    ready: Annotated[
        bool,
        typer.Option("--ready", help="Also check that Redis answers (readiness)."),
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Check that the service answers (liveness). The exit status is 0 if it does, else 1."""
    checked = READINESS if ready else LIVENESS
    with client(address) as connected:
        try:
            answer = health_pb2_grpc.HealthStub(connected.channel()).Check(
                health_pb2.HealthCheckRequest(service=checked), timeout=_HEALTH_DEADLINE_S
            )
        except grpc.RpcError as error:
            fail(str(service_error(error, address)))
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if as_json:
        print_json({"address": address, "status": status})
    else:
        say(f"{address}: {status}")
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(1)
