"""Identifiers of writes, by which the service recognizes retries."""

from __future__ import annotations

import uuid


def new_request_id() -> str:
    """Return an identifier that no other request has."""
    return uuid.uuid4().hex
