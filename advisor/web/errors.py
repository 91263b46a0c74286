"""From errors to HTTP statuses, in one table."""

from __future__ import annotations

from http import HTTPStatus

import structlog

from advisor.policy import InvalidValueError
from advisor.web.limits import LimitExceededError
from fslr import errors

_log = structlog.get_logger()


class PageNotFoundError(Exception):
    """There is no such page."""


class BadQueryError(Exception):
    """A parameter of the address has a value that cannot be used."""


STATUSES: dict[type[Exception], HTTPStatus] = {
    BadQueryError: HTTPStatus.BAD_REQUEST,
    InvalidValueError: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequestError: HTTPStatus.BAD_REQUEST,
    errors.AuthenticationError: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDeniedError: HTTPStatus.FORBIDDEN,
    PageNotFoundError: HTTPStatus.NOT_FOUND,
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    LimitExceededError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooBusyError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.MessageTooLargeError: HTTPStatus.BAD_GATEWAY,
    errors.UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServiceError: HTTPStatus.BAD_GATEWAY,
}
"""The status for each kind of error; the most special kind counts."""


def status_of(error: Exception) -> HTTPStatus:
    """Return the status for an error; one that is not in the table is a defect."""
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def message_of(error: Exception, path: str) -> str:
    """Return what a page says of an error; a defect is logged, and its page says nothing of it.

    Args:
        error: The error.
        path: Path of the request.
    """
    if status_of(error) is HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.exception("a page failed", path=path, exc_info=error)
        return ""
    return str(error)
