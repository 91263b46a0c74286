"""The gate of every method: who calls, what its role allows, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from advisor.auth.authenticator import Authenticator
from advisor.auth.quotas import Quotas
from advisor.auth.roles import Grant, Role
from advisor.errors import TooManyGroupsError, UnauthenticatedError
from advisor.rpc.requests import groups_of, projects_of

CALLER: ContextVar[Grant | None] = ContextVar("caller", default=None)
"""Who makes the call that is being answered; None: callers are not authenticated."""

_AUTHORIZATION, _SCHEME = "authorization", "bearer "
_NAMES = ("x509_subject_alternative_name", "x509_common_name")

_PACKAGE = "/fslr.advisor.v1"
ROLES: dict[str, Role] = {
    f"{_PACKAGE}.AdvisorService/RecommendLR": Role.TRAINER,
    f"{_PACKAGE}.AdvisorService/RecommendLROnce": Role.TRAINER,
    f"{_PACKAGE}.AuditService/ListAuditEvents": Role.VIEWER,
    f"{_PACKAGE}.PolicyService/GetPolicy": Role.VIEWER,
    f"{_PACKAGE}.PolicyService/ListPolicies": Role.VIEWER,
    f"{_PACKAGE}.PolicyService/SetPolicy": Role.OPERATOR,
    f"{_PACKAGE}.ProfileService/DeleteProfile": Role.OPERATOR,
    f"{_PACKAGE}.ProfileService/DeleteProfileAlias": Role.OPERATOR,
    f"{_PACKAGE}.ProfileService/GetProfile": Role.VIEWER,
    f"{_PACKAGE}.ProfileService/ListProfiles": Role.VIEWER,
    f"{_PACKAGE}.ProfileService/RegisterProfile": Role.OPERATOR,
    f"{_PACKAGE}.ProfileService/SetProfileAlias": Role.OPERATOR,
    f"{_PACKAGE}.ProfileService/ValidateLayout": Role.VIEWER,
    f"{_PACKAGE}.RunService/GetRun": Role.VIEWER,
    f"{_PACKAGE}.RunService/GetRunHistory": Role.VIEWER,
    f"{_PACKAGE}.RunService/ListRuns": Role.VIEWER,
    f"{_PACKAGE}.RunService/WatchRun": Role.VIEWER,
    f"{_PACKAGE}.StatusService/GetStatus": Role.VIEWER,
}
"""The least role that each method needs; one that is not here needs the highest."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call shows.

    Attributes:
        token: Its token; None: it sent none.
        certificate_names: The names in its certificate, verified in the handshake.
    """

    token: str | None
    certificate_names: tuple[str, ...]

    @classmethod
    def of(cls, context: grpc.aio.ServicerContext[Any, Any]) -> Credentials:
        """Return what a call shows.

        Raises:
            UnauthenticatedError: Its `authorization` is of another kind than ours.
        """
        said = next(
            (v for k, v in context.invocation_metadata() or () if k == _AUTHORIZATION), None
        )
        token = None
        if said is not None:
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            if not text.lower().startswith(_SCHEME):
                raise UnauthenticatedError(
                    "the call's authorization does not read 'Bearer {token}'"
                )
            token = text[len(_SCHEME) :].strip()
        shown = context.auth_context() or {}
        names = (name for kind in _NAMES for name in shown.get(kind, ()))
        return cls(token, tuple(name.decode("utf-8", "replace") for name in names))


class Authorizer:
    """Lets calls in.

    Args:
        authenticator: Proves who calls; None: anybody may do everything.
        quotas: Bounds what one caller uses.
        max_groups: Most groups of a layout.
    """

    def __init__(
        self, authenticator: Authenticator | None, quotas: Quotas, *, max_groups: int
    ) -> None:
        self._authenticator = authenticator
        self._quotas = quotas
        self._max_groups = max_groups

    def credentials(self, context: grpc.aio.ServicerContext[Any, Any]) -> Credentials | None:
        """Return what a call shows; None if nobody asks for it."""
        return None if self._authenticator is None else Credentials.of(context)

    @contextmanager
    def stream(self, caller: Grant | None) -> Iterator[None]:
        """Count a stream of a caller as long as the context lasts."""
        if caller is None:
            yield
        else:
            with self._quotas.stream(caller):
                yield

    async def caller(self, credentials: Credentials | None) -> Grant | None:
        """Return who calls, and let the rest of the call know.

        Args:
            credentials: What it shows.

        Raises:
            UnauthenticatedError: It proves nothing.
        """
        if self._authenticator is None or credentials is None:
            return None
        found = await self._authenticator.grant(credentials.token, credentials.certificate_names)
        CALLER.set(found)
        return found

    def check(self, path: str, caller: Grant | None, request: Any) -> None:
        """Raise unless a caller may send a request.

        Args:
            path: The method.
            caller: Who calls; None: anybody.
            request: The request.

        Raises:
            PermissionDeniedError: The caller may not do that, or not there.
            QuotaExceededError: It sent as many messages as it may.
            TooManyGroupsError: The request's layout is too large.
        """
        if caller is not None:
            self._quotas.message(caller)
            caller.check(ROLES.get(path, Role.OPERATOR), projects_of(request))
        groups = groups_of(request)
        if groups > self._max_groups:
            raise TooManyGroupsError(groups, self._max_groups)
