"""The connection to a service: one channel, opened lazily, with TLS, token and retries."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import grpc

from fslr.client.certificates import CertificateFiles
from fslr.client.forks import check_channel_can_open
from fslr.client.http_proxies import channel_options
from fslr.client.loopback import is_local_address
from fslr.client.status_errors import service_error
from fslr.client.tokens import TokenSource
from fslr.client.trace_context import trace_metadata
from fslr.environment import user_name
from fslr.errors import CertificateError, TokenError

_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# Writes are retried as well: the service recognizes a retry by its request id.
_RETRIED_SERVICES = (
    *("AdvisorService", "AuditService", "PolicyService", "ProfileService", "RecipeService"),
    *("RunService", "StatusService"),
)
_ACTOR_KEY = "fslr-actor"
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    # A channel is back seconds after the service is, however long that was away. The default is up
    # to two minutes.
    ("grpc.max_reconnect_backoff_ms", 5000),
    (
        "grpc.service_config",
        json.dumps({
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": [{"service": f"fslr.advisor.v1.{name}"} for name in _RETRIED_SERVICES],
                    "retryPolicy": _RETRY_POLICY,
                },
                # Streams that gRPC retries may never end; StreamSession reconnects itself.
                {"name": [{"service": "fslr.advisor.v1.AdvisorService", "method": "RecommendLR"}]},
            ],
        }),
    ),
]

_Response = TypeVar("_Response")
_log = logging.getLogger(__name__)


class Connection:
    """A connection to one advisor service.

    :class:`fslr.AdvisorClient` documents the arguments.
    """

    def __init__(
        self,
        address: str,
        *,
        deadline_s: float = 10.0,
        actor: str | None = None,
        tls: CertificateFiles | None = None,
        token: str | None = None,
        allow_insecure: bool | None = None,
    ) -> None:
        files = tls or CertificateFiles.from_environment()
        self._certificates = None if files is None else files.watch()
        self._token = TokenSource.from_environment() if token is None else TokenSource(token)
        if allow_insecure is None:
            allow_insecure = os.environ.get("FSLR_ALLOW_INSECURE", "").lower() in {"1", "true"}
        is_allowed = files is not None or is_local_address(address) or allow_insecure
        if self._token.given and not is_allowed:
            raise TokenError(
                f"the token would be sent to {address} unencrypted; set FSLR_TLS_CA to the "
                "certificate authority of the advisor, or, in a trusted network, "
                "FSLR_ALLOW_INSECURE=1"
            )
        self.address = address
        self.actor = user_name() if actor is None else actor
        self.deadline_s = deadline_s
        self._channel: grpc.Channel | None = None
        self._channel_pid = 0

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel; the next call opens it again."""
        if self._channel is not None and self._channel_pid == os.getpid():
            self._channel.close()
        self._channel = None

    def channel(self) -> grpc.Channel:
        """Return the channel of this process; it is opened if needed.

        Raises:
            ServiceError: Calls of this forked process may hang.
        """
        renewed = self._certificates_changed()
        if renewed or self._channel is None or self._channel_pid != os.getpid():
            # Calls in progress keep the channel that they started on.
            self._channel = self._new_channel()
            self._channel_pid = os.getpid()
        return self._channel

    def _certificates_changed(self) -> bool:
        """Return whether the certificates changed and the new ones can be used."""
        try:
            return self._certificates is not None and self._certificates.refresh()
        except CertificateError as error:
            _log.warning("the last good certificate stays in use: %s", error)
            return False

    def _new_channel(self) -> grpc.Channel:
        check_channel_can_open()
        options = (*_CHANNEL_OPTIONS, *channel_options(self.address))
        if self._certificates is None:
            return grpc.insecure_channel(self.address, options=options)
        current = self._certificates.current
        credentials = grpc.ssl_channel_credentials(current.ca, *(current.pair or ()))
        return grpc.secure_channel(self.address, credentials, options=options)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of every call: the actor, the token and the caller's trace."""
        actor = (_ACTOR_KEY, quote(self.actor, errors="replace"))
        return (actor, *self._token.metadata(), *trace_metadata())

    def _call(self, method: Callable[..., _Response], request: Any) -> _Response:
        try:
            return method(
                request,
                timeout=self.deadline_s,
                metadata=self.metadata(),
            )
        except grpc.RpcError as error:
            raise service_error(error, self.address) from error
