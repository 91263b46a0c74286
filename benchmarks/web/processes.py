"""Finds the process of the page beside its service."""

from __future__ import annotations

from pathlib import Path

_MODULE = b"advisor.server.web_worker"


def web_process(service: int) -> int:
    """Return the id of the process of the page.

    Args:
        service: Id of the service's process.

    Raises:
        LookupError: The service has no page.
    """
    children = Path(f"/proc/{service}/task/{service}/children").read_text("utf-8").split()
    for child in children:
        if _MODULE in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise LookupError(f"process {service} serves no page; start the service with --http")
