"""Iteration over calls that answer in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_Request = TypeVar("_Request")
_Page = TypeVar("_Page")


def pages_by_token(call: Callable[[_Request], _Page], request: _Request) -> Iterator[_Page]:
    """Yield the pages of a call whose answers carry a ``next_page_token``."""
    return _pages(call, request, _set_page_token)


def pages_by_event(call: Callable[[_Request], _Page], request: _Request) -> Iterator[_Page]:
    """Yield the pages of a call whose answers say ``more``, and go on after their last event."""
    return _pages(call, request, _set_after_id)


def pages_by_report(call: Callable[[_Request], _Page], request: _Request) -> Iterator[_Page]:
    """Yield the pages of a call whose answers say ``more``, and go on after their last report."""
    return _pages(call, request, _set_after_report)


def _pages(
    call: Callable[[_Request], _Page], request: _Request, advance: Callable[[Any, Any], bool]
) -> Iterator[_Page]:
    while True:
        page = call(request)
        yield page
        if not advance(request, page):
            return


def _set_page_token(request: Any, page: Any) -> bool:
    """Make the request ask for the next page, and return whether there is one."""
    request.page_token = page.next_page_token
    return bool(page.next_page_token)


def _set_after_id(request: Any, page: Any) -> bool:
    """Make the request ask for the next page, and return whether there is one."""
    if page.more:
        request.after_id = page.events[-1].id
    return bool(page.more)


def _set_after_report(request: Any, page: Any) -> bool:
    """Make the request ask for the next page, and return whether there is one."""
    if page.more:
        request.after_id = page.reports[-1].id
    return bool(page.more)
