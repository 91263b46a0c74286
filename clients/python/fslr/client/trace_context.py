"""The trace that a job makes of itself, if it makes one, goes on in the advisor."""

from __future__ import annotations

import sys


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return what tells a service of the current span: nothing where OpenTelemetry is not in use.

    It is never loaded here: a job that makes traces has loaded it.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    carrier: dict[str, str] = {}
    try:
        from opentelemetry import propagate  # noqa: PLC0415 - beside what is loaded

        propagate.inject(carrier)
    except Exception:  # noqa: BLE001 - a job's own tracing must not cost it the advice
        return ()
    return tuple(carrier.items())
