"""OpenTelemetry traces of calls. OpenTelemetry is an extra, loaded only if tracing is enabled.

OpenTelemetry's own instrumentation packages are not used. The one for gRPC does not see the status
of calls that end by ``abort_with_status``, writes error messages, which contain values, into spans,
and exports a single span at the end of a stream that lasts hours. The one for Redis would create a
trace for every readiness check.
"""

from __future__ import annotations

import asyncio
import threading
import time
from importlib import metadata
from typing import TYPE_CHECKING

from advisor.observability.observers import CommandObserver
from fslr.optional_dependencies import install_command

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_SERVICE = "fslr-advisor"
_UNNAMED = "unknown_service"  # OpenTelemetry's default name


class TracingError(Exception):
    """Tracing is enabled, and its packages are not installed."""


class Tracing:
    """The tracing of a service, which may be disabled.

    Args:
        provider: Exports the spans; None disables tracing.

    Attributes:
        tracer: Creates the spans; None if tracing is disabled.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self.tracer: Tracer | None = None if provider is None else provider.get_tracer("advisor")

    @classmethod
    def started(cls, *, enabled: bool) -> Tracing:
        """Return tracing configured by the environment variables ``OTEL_...``.

        Args:
            enabled: Whether calls are traced.

        Raises:
            TracingError: The extra ``tracing`` is not installed.
        """
        if not enabled:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise TracingError(
                f"tracing needs packages that are not installed ({error}); "
                f"{install_command('tracing')}; or omit --tracing"
            ) from error
        resource = Resource.create({"service.version": metadata.version(_SERVICE)})
        if str(resource.attributes.get("service.name", "")).startswith(_UNNAMED):
            resource = resource.merge(Resource({"service.name": _SERVICE}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def observing(self, observe: CommandObserver) -> CommandObserver:
        """Return an observer of Redis commands that also creates a span for each command of a call.

        Commands outside of calls (readiness, telemetry) get no span. A span has the command's name
        and none of its values.

        Args:
            observe: The observer to wrap; it is called for every command.
        """
        tracer = self.tracer
        if tracer is None:
            return observe
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        def traced(command: str, seconds: float, *, failed: bool) -> None:
            observe(command, seconds, failed=failed)
            if not trace.get_current_span().is_recording():
                return
            ended_ns = time.time_ns()
            span = tracer.start_span(
                f"redis {command}",
                kind=trace.SpanKind.CLIENT,
                attributes={"db.system.name": "redis", "db.operation.name": command},
                start_time=ended_ns - round(seconds * 1e9),
            )
            if failed:
                span.set_status(trace.StatusCode.ERROR)
            span.end(ended_ns)

        return traced

    async def stop(self, *, deadline_s: float) -> None:
        """Export the remaining spans, and stop.

        Args:
            deadline_s: Maximum time to wait for the collector, in seconds.
        """
        provider = self._provider
        if provider is None:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            provider.force_flush(round(deadline_s * 1000))
            loop.call_soon_threadsafe(done.set)
            provider.shutdown()

        # Not a thread of the loop's pool: the process would wait for it to end.
        threading.Thread(target=end, name="tracing", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), deadline_s)
        except TimeoutError:
            return
