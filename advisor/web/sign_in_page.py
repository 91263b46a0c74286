"""Signing in with a token, and out again."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from advisor.report.texts import Texts
from advisor.web import sessions
from advisor.web.backend import Viewer
from advisor.web.context import Context
from advisor.web.errors import BadQueryError
from advisor.web.rendering import language_of
from fslr.errors import AuthenticationError

_MAX_FORM_BYTES = 8_192
_MAX_FIELDS = 8
_ATTEMPT_COST = 10.0  # requests that one attempt counts as


async def form(context: Context, request: Request) -> Response:
    """Return the form."""
    return context.renderer.page(
        request,
        "sign_in.html",
        target=sessions.safe_target(request.query_params.get("next", "/")),
        problem="",
    )


async def submit(context: Context, request: Request) -> Response:
    """Check the token and set the cookie; an empty token signs out.

    Raises:
        BadQueryError: The form was sent by a different site, or is too large.
    """
    fields = await _fields(request)
    if not sessions.is_same_site(request):
        raise BadQueryError("the form was sent by a different site; open the sign-in page here")
    target = sessions.safe_target(fields.get("next", "/"))
    token = fields.get("token", "").strip()
    if not token:
        response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
        sessions.sign_out(request, response)
        return response
    address = request.client.host if request.client else ""
    context.limits.request(f"sign-in {address}", cost=_ATTEMPT_COST)
    if not await _is_valid(context, token):
        return context.renderer.page(
            request,
            "sign_in.html",
            HTTPStatus.UNAUTHORIZED,
            target=target,
            problem=Texts(language_of(request))("page.sign_in.invalid"),
        )
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    sessions.sign_in(request, response, token)
    return response


async def _is_valid(context: Context, token: str) -> bool:
    """Return whether the service accepts a token."""
    if not sessions.is_token(token):
        return False
    try:
        await context.backend.status(Viewer(token), max_age_s=0)
    except AuthenticationError:
        return False
    return True


async def _fields(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise BadQueryError(f"the form is larger than {_MAX_FORM_BYTES} bytes")
    text = body.decode("utf-8", "replace")
    try:
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise BadQueryError(f"the form has more than {_MAX_FIELDS} fields") from error
    return {name: values[0] for name, values in fields.items()}
