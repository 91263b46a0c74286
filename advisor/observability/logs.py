"""The log of the service: one line per event, to standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure_logging(*, as_json: bool) -> None:
    """Set up the log of this process.

    Args:
        as_json: Whether to write JSON lines instead of text for people.
    """
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Looked up for each line, as tests and terminals may replace standard error.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
