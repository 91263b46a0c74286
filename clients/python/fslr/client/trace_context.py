"""Propagates the trace of the calling job, if it has one, to the advisor."""

from __future__ import annotations

import sys


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return the call metadata of the current span; empty if the job does not use OpenTelemetry.

    OpenTelemetry counts as used once the job has imported it; it is never imported from here.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    carrier: dict[str, str] = {}
    try:
        from opentelemetry import propagate  # noqa: PLC0415 - optional

        propagate.inject(carrier)
    except Exception:  # noqa: BLE001 - broken tracing must not fail the call
        return ()
    return tuple(carrier.items())
