"""Renders pages: the templates, the language, and how values are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from advisor.policy.control_characters import without_controls
from advisor.report import sentences
from advisor.report.texts import LANGUAGES, Texts
from advisor.report.texts.tables import all_texts
from advisor.report.words import (
    METRIC_DIGITS,
    format_number,
    format_percent,
    name_pieces,
    short_name,
    whole_numbers,
)
from advisor.web.errors import message_of, status_of
from advisor.web.numbers import to_json
from advisor.web.sessions import LANGUAGE_COOKIE
from advisor.web.streaming import streamed_page

_ABSENT = "\N{EN DASH}"
_CONTENT = "<!-- content -->"  # where it stands in a frame, see base.html
_MAX_NAME = 96  # characters of a name in a page; its title has all of them

Content = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns the values of a page's content once they are there."""

Kind = TypeVar("Kind", bound=Response)


def language_of(request: Request) -> str:
    """Return the language of a page: as asked for, as before, or as the browser prefers."""
    for wanted in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
        if wanted in LANGUAGES:
            return str(wanted)
    for part in request.headers.get("accept-language", "").split(","):
        code = part.partition(";")[0].strip().partition("-")[0].lower()
        if code in LANGUAGES:
            return code
    return next(iter(LANGUAGES))


class Renderer:
    """Renders the templates of this package; every value is escaped.

    Args:
        static: The path of the scripts and styles, without a slash at the end.
    """

    def __init__(self, static: str = "/static") -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("advisor.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "number": _number,
            "percent": _percent,
            "short": short_name,
            "cut": _cut,
            "name": _name,
            "breakable": _breakable,
            "time": _time,
            "iso": _iso,
            "json": _json,
            "metric": _metric,
        }
        self._environment.globals |= {
            "static": static,
            "decay_text": sentences.decay_text,
            "reason": sentences.reason,
            "change_text": sentences.change_text,
            "outcome_text": sentences.outcome_text,
        }

    def load(self) -> None:
        """Compile the templates and read the texts, which the first visitor would wait for."""
        all_texts()
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def page(
        self,
        request: Request,
        template: str,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """Return a page in the language of a request.

        Args:
            request: The request.
            template: File name of the template.
            status: Status of the answer.
            headers: Further headers.
            **values: Values for the template.
        """
        text = self.render(template, language_of(request), **_of_request(request), **values)
        return _keeping_language(request, HTMLResponse(text, status, headers=headers))

    def page_in_parts(
        self, request: Request, template: str, content: Content, **values: Any
    ) -> Response:
        """Return a page whose frame is sent before its content is there.

        The browser loads the scripts meanwhile. If there is no content, the page says why.

        Args:
            request: The request.
            template: File name of the template.
            content: Returns the values of its content.
            **values: Values for its frame.
        """
        language = language_of(request)
        frame = self.render(template, language, has_content=False, **_of_request(request), **values)
        before, _, after = frame.partition(_CONTENT)

        async def parts() -> AsyncIterator[str]:
            yield before
            try:
                text = self._content(template, language, **values, **await content())
            except Exception as error:  # noqa: BLE001 - a page never shows a stack trace
                kind, message = status_of(error).name.lower(), message_of(error, request.url.path)
                text = self._content("error.html", language, kind=kind, message=message)
            yield text + after

        return _keeping_language(request, streamed_page(request, parts()))

    def render(self, template: str, language: str, **values: Any) -> str:
        """Return a rendered template.

        Args:
            template: File name of the template.
            language: Code of the language.
            **values: Values for the template.
        """
        return self._environment.get_template(template).render(_with_defaults(language, values))

    def _content(self, template: str, language: str, **values: Any) -> str:
        """Return the content of a page without its frame."""
        found = self._environment.get_template(template)
        return "".join(found.blocks["content"](found.new_context(_with_defaults(language, values))))


def _with_defaults(language: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for a template, with those that every template has."""
    defaults = {"caller": None, "project": "", "path": "", "languages": (), "has_content": True}
    return {**defaults, **values, "t": Texts(language), "language": language}


def _of_request(request: Request) -> dict[str, Any]:
    """Return what the frame of a page shows of a request."""
    links = [
        (code, name, f"?{request.url.include_query_params(lang=code).query}")
        for code, name in LANGUAGES.items()
    ]
    return {"path": request.url.path, "languages": links}


def _keeping_language(request: Request, response: Kind) -> Kind:
    """Return an answer that keeps the language, if the request has chosen one."""
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language_of(request), path="/", samesite="strict")
    return response


def _number(value: float | None, digits: int = 4) -> str:
    return _ABSENT if value is None else format_number(value, digits)


def _metric(value: float | None) -> str:
    return _number(value, METRIC_DIGITS)


def _percent(value: float | None, digits: int = 0) -> str:
    return _ABSENT if value is None else format_percent(value, digits=digits)


def _cut(text: str) -> str:
    """Return a name without control characters; a long one with its middle left out."""
    text = without_controls(text)
    half = _MAX_NAME // 2
    return text if len(text) <= _MAX_NAME else f"{text[:half]}…{text[-half + 1 :]}"


def _name(text: str) -> Markup:
    """Return a name as :func:`_cut` does, which may be broken as :func:`_breakable` says."""
    return _breakable(_cut(text))


def _breakable(text: str) -> Markup:
    """Return a text whose lines may end after dots, slashes and underscores, and not in numbers.

    It is for the content of elements; titles and attributes have no places to break.
    """
    return Markup("<wbr>").join(name_pieces(whole_numbers(without_controls(text))))


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _json(data: Any) -> str:
    """Return data for an attribute that a script reads."""
    return to_json(data).decode()


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
