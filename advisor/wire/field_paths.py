"""Paths of fields in errors: readers of a part prepend the path of the part in the message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from advisor.policy import InvalidValueError


@contextmanager
def field_path(parent: str) -> Iterator[None]:
    """Put the fields of errors raised in the context under a parent.

    Args:
        parent: Path of the parent field, such as ``opening.layout``.

    Raises:
        InvalidValueError: One was raised in the context; its path now begins at ``parent``.
    """
    try:
        yield
    except InvalidValueError as error:
        raise error.under(parent) from None
