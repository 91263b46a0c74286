"""``advisor web``: the web page beside a service that runs elsewhere."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated, Any

import structlog
import typer
from pydantic import ValidationError

from advisor.cli.common import DEFAULT_ADDRESS, Address, describe_setting_error, fail
from advisor.cli.setting_options import with_setting_options
from advisor.observability.logs import configure_logging
from advisor.runtime.event_loop import run_loop, stop_at_eof
from advisor.server.listening import ListenError
from advisor.server.settings import Settings
from advisor.server.web import bound_listener, check_packages, web_limits
from fslr import CertificateError
from fslr.client.certificates import CertificateFiles

_DEFAULT_PORT = 8080

_log = structlog.get_logger()


@with_setting_options((
    *("host", "http", "allow_insecure", "tls_cert", "tls_key", "tls_client_ca"),
    *("http_max_requests_per_s", "http_max_live_pages", "grace_s"),
))
def web(
    *,
    given: dict[str, Any],
    address: Address = DEFAULT_ADDRESS,
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
    """Serve the web page of a service that runs elsewhere; without --http on port 8080.

    It reads through the service at --address, with the tokens of the people who sign in.
    """
    configure_logging(as_json=log_json)
    try:
        settings = Settings(**given)
        if settings.http is None:
            settings = Settings(**{"http": _DEFAULT_PORT, **given})
    except ValidationError as error:
        fail(describe_setting_error(error))
    try:
        check_packages()
        _check_exposure(settings)
        run_loop(_serve(settings, address, until_eof=until_eof))
    except (ListenError, CertificateError) as error:
        fail(str(error))


def _check_exposure(settings: Settings) -> None:
    """Refuse to take tokens from other machines without encryption.

    Raises:
        ListenError: Other machines can reach the page, and it has no TLS.
    """
    if settings.is_loopback or settings.tls is not None or settings.allow_insecure:
        return
    raise ListenError(
        f"{settings.host} can be reached from other machines, and the page is not encrypted; give "
        "--tls-cert and --tls-key, listen on 127.0.0.1, or give --allow-insecure if the network "
        "itself is trusted"
    )


async def _serve(settings: Settings, address: str, *, until_eof: bool) -> None:
    from advisor.web.backend import Backend  # noqa: PLC0415 - an extra
    from advisor.web.serving import serving  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), stop_at_eof, stop)
    async with serving(
        Backend(address, CertificateFiles.from_environment()),
        web_limits(settings),
        listener=bound_listener(settings),
        tls=settings.tls,
        grace_s=settings.grace_s,
    ) as page:
        _log.info("serving the web page", url=page.url, service=address)
        await stop.wait()
