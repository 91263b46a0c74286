"""Authorization of every call: who calls, what its role allows, and its quotas."""

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
"""The caller of the current call; None if callers are not authenticated."""

_AUTHORIZATION, _SCHEME = "authorization", "bearer "
_CERTIFICATE_NAMES = ("x509_subject_alternative_name", "x509_common_name")

_PACKAGE = "/fslr.advisor.v1"
ROLES: dict[str, Role] = {
    f"{_PACKAGE}.AdvisorService/RecommendLR": Role.TRAINER,
    f"{_PACKAGE}.AdvisorService/RecommendLROnce": Role.TRAINER,
    f"{_PACKAGE}.AuditService/ListAuditEvents": Role.VIEWER,
    f"{_PACKAGE}.PolicyService/DeletePolicy": Role.OPERATOR,
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
    f"{_PACKAGE}.RecipeService/ApplyRecipe": Role.VIEWER,
    f"{_PACKAGE}.RecipeService/DeleteRecipe": Role.OPERATOR,
    f"{_PACKAGE}.RecipeService/GetRecipe": Role.VIEWER,
    f"{_PACKAGE}.RecipeService/ListRecipes": Role.VIEWER,
    f"{_PACKAGE}.RecipeService/SetRecipe": Role.OPERATOR,
    f"{_PACKAGE}.RunService/DeleteRun": Role.OPERATOR,
    f"{_PACKAGE}.RunService/GetRun": Role.VIEWER,
    f"{_PACKAGE}.RunService/GetRunHistory": Role.VIEWER,
    f"{_PACKAGE}.RunService/ListRunMetrics": Role.VIEWER,
    f"{_PACKAGE}.RunService/ListRuns": Role.VIEWER,
    f"{_PACKAGE}.RunService/ReportRunMetrics": Role.TRAINER,
    f"{_PACKAGE}.RunService/WatchRun": Role.VIEWER,
    f"{_PACKAGE}.StatusService/GetStatus": Role.VIEWER,
}
"""The minimum role for each method; a method without an entry needs the highest role."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a call.

    Attributes:
        token: The token; None if the call has none.
        certificate_names: The names in the client certificate, which the TLS handshake verified.
    """

    token: str | None
    certificate_names: tuple[str, ...]

    @classmethod
    def of(cls, context: grpc.aio.ServicerContext[Any, Any]) -> Credentials:
        """Return the credentials of a call.

        Raises:
            UnauthenticatedError: The `authorization` metadata is not a bearer token.
        """
        value = next(
            (v for k, v in context.invocation_metadata() or () if k == _AUTHORIZATION), None
        )
        token = None
        if value is not None:
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            if not text.lower().startswith(_SCHEME):
                raise UnauthenticatedError(
                    "the call's authorization does not read 'Bearer {token}'"
                )
            token = text[len(_SCHEME) :].strip()
        properties = context.auth_context() or {}
        names = (name for kind in _CERTIFICATE_NAMES for name in properties.get(kind, ()))
        return cls(token, tuple(name.decode("utf-8", "replace") for name in names))


class Authorizer:
    """Authenticates callers and checks what they may do.

    Args:
        authenticator: Authenticates callers; None allows everyone everything.
        quotas: Limits the use by one caller.
        max_groups: Maximum number of groups and frozen names of a layout.
    """

    def __init__(
        self, authenticator: Authenticator | None, quotas: Quotas, *, max_groups: int
    ) -> None:
        self._authenticator = authenticator
        self._quotas = quotas
        self._max_groups = max_groups

    def credentials(self, context: grpc.aio.ServicerContext[Any, Any]) -> Credentials | None:
        """Return the credentials of a call; None if callers are not authenticated.

        Raises:
            UnauthenticatedError: The `authorization` metadata is not a bearer token.
        """
        return None if self._authenticator is None else Credentials.of(context)

    @contextmanager
    def stream(self, caller: Grant | None) -> Iterator[None]:
        """Count a stream of a caller while the context lasts.

        Raises:
            QuotaExceededError: The caller has as many open streams as its quota allows.
        """
        if caller is None:
            yield
        else:
            with self._quotas.stream(caller):
                yield

    async def authenticate(self, credentials: Credentials | None) -> Grant | None:
        """Return the caller, and set :data:`CALLER` for the rest of the call.

        Args:
            credentials: The credentials of the call.

        Raises:
            UnauthenticatedError: The credentials are missing or not valid.
        """
        if self._authenticator is None or credentials is None:
            return None
        caller = await self._authenticator.authenticate(
            credentials.token, credentials.certificate_names
        )
        CALLER.set(caller)
        return caller

    def check(self, path: str, caller: Grant | None, request: Any) -> None:
        """Raise an error unless a caller may send a request.

        Args:
            path: The method's path, ``/package.Service/Method``.
            caller: The caller; None if callers are not authenticated.
            request: The request.

        Raises:
            PermissionDeniedError: The caller's role or project does not allow the request.
            QuotaExceededError: The caller has sent as many messages as its quota allows.
            TooManyGroupsError: The request's layout is too large.
        """
        if caller is not None:
            self._quotas.message(caller)
            caller.check(ROLES.get(path, Role.OPERATOR), projects_of(request))
        groups = groups_of(request)
        if groups > self._max_groups:
            raise TooManyGroupsError(groups, self._max_groups)
