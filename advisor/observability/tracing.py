"""Traces of calls by OpenTelemetry, an extra; without it nothing of it is loaded.

The packages' own instrumentation is left aside. That of gRPC does not see how our calls end
(``abort_with_status``), writes the texts of errors, which hold values, into spans, and gives a
stream of hours one span at its end. That of Redis would make a trace of each look at readiness.
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
_UNNAMED = "unknown_service"  # OpenTelemetry's, where the environment says nothing


class TracingError(Exception):
    """Traces are asked for and the packages that make them are missing."""


class Tracing:
    """Traces, or none.

    Args:
        provider: Where spans go; None: calls are not traced.

    Attributes:
        tracer: Makes the spans; None: calls are not traced.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self.tracer: Tracer | None = None if provider is None else provider.get_tracer("advisor")

    @classmethod
    def started(cls, *, enabled: bool) -> Tracing:
        """Return traces that go where the environment variables ``OTEL_...`` say, or none.

        Args:
            enabled: Whether calls are traced at all.

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
                f"{install_command('tracing')}; or leave --tracing out"
            ) from error
        resource = Resource.create({"service.version": metadata.version(_SERVICE)})
        if str(resource.attributes.get("service.name", "")).startswith(_UNNAMED):
            resource = resource.merge(Resource({"service.name": _SERVICE}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def observing(self, observe: CommandObserver) -> CommandObserver:
        """Return an observer of Redis that also makes a span of each command inside of a call.

        What no call asks for (readiness, telemetry) makes none. A span has the command's name and
        none of its values.

        Args:
            observe: Is told of each command all the same.
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
        """Send what waits, and end.

        Args:
            deadline_s: How long a collector that does not answer is waited for, in seconds.
        """
        provider = self._provider
        if provider is None:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            provider.force_flush(round(deadline_s * 1000))
            loop.call_soon_threadsafe(done.set)
            provider.shutdown()

        # No thread of the loop's own pool, for whose end the process would wait.
        threading.Thread(target=end, name="tracing", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), deadline_s)
        except TimeoutError:
            return
