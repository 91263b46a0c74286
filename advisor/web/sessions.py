"""Signing in: the viewer's token is kept in a cookie that scripts cannot read."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from advisor.web.backend import Viewer

LANGUAGE_COOKIE = "language"
_PLAIN_COOKIE, _SECURE_COOKIE = "advisor-token", "__Host-advisor-token"
# Browsers may keep a cookie for the time of the browser session; the service ends it sooner if the
# token expires or is revoked.
_TOKEN = re.compile(r"[\x21-\x3a\x3c-\x7e]{1,512}")  # visible ASCII but the semicolon


def _cookie_name(request: Request) -> str:
    return _SECURE_COOKIE if request.url.scheme == "https" else _PLAIN_COOKIE


def viewer_of(request: Request) -> Viewer:
    """Return the viewer of a request, who may not have signed in."""
    token = request.cookies.get(_cookie_name(request), "")
    return Viewer(token if _TOKEN.fullmatch(token) else "")


def is_token(text: str) -> bool:
    """Return whether a text could be a token."""
    return _TOKEN.fullmatch(text) is not None


def sign_in(request: Request, response: Response, token: str) -> None:
    """Set the cookie. It is sent only to this host, and never with requests from other sites."""
    response.set_cookie(
        _cookie_name(request),
        token,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def sign_out(request: Request, response: Response) -> None:
    """Delete the cookie."""
    response.delete_cookie(
        _cookie_name(request),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def is_same_site(request: Request) -> bool:
    """Return whether a form was sent by a page of this service, as far as the browser says."""
    origin = request.headers.get("origin")
    if origin is None:
        return True  # not a browser of today; SameSite and the token itself remain
    return urlsplit(origin).netloc == request.headers.get("host")


def safe_target(text: str) -> str:
    """Return a path of this service to go to, or the overview if it is not one."""
    parts = urlsplit(text)
    is_path = text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if is_path and not parts.netloc and not parts.scheme else "/"
