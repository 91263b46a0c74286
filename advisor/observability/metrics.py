"""The Prometheus metrics of the service: those common for gRPC servers, and its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_METHOD = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """The metrics of one service.

    Attributes:
        registry: The registry; each service has its own, so that two in one process do not mix.
        methods: The counters of each gRPC method, by path.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.methods: dict[str, Any] = {}

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self.started = counter("grpc_server_started_total", "Calls started.", _METHOD)
        self.handled = counter(
            "grpc_server_handled_total", "Calls ended, by status code.", (*_METHOD, "grpc_code")
        )
        self.handling_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Duration of a call; for a stream, of each message.",
            _METHOD,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.received = counter("grpc_server_msg_received_total", "Messages received.", _METHOD)
        self.sent = counter("grpc_server_msg_sent_total", "Messages sent.", _METHOD)
        self.refused = counter(
            "advisor_refused_calls_total",
            "Calls refused because a limit or a token's quota was reached.",
            ("grpc_type",),
        )
        self.open_calls = Gauge(
            "advisor_open_calls",
            "Open calls.",
            ("grpc_type",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.answers = counter("advisor_answers_total", "Recommendations sent.", ("stale",))
        self.groups = counter(
            "advisor_recommended_groups_total", "Groups in recommendations.", ("outcome",)
        )
        self.profiles = counter(
            "advisor_profile_lookups_total",
            "Profile lookups of runs: from the cache (hit), from Redis (miss), from the cache "
            "while Redis is unavailable (stale).",
            ("result",),
        )
        self.redis_seconds = Histogram(
            "advisor_redis_seconds",
            "Duration of a Redis command; `pipeline`: of several commands at once.",
            ("command",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.redis_errors = counter(
            "advisor_redis_errors_total", "Redis commands that failed.", ("command",)
        )
        self.telemetry_lost = counter(
            "advisor_telemetry_lost_total", "Measurements that were not stored."
        )
        self.ready = Gauge(
            "advisor_ready",
            "1 while Redis answers, else 0.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )

    def time_redis(self, command: str, seconds: float, *, failed: bool) -> None:
        """Record a Redis command.

        Args:
            command: Name of the command.
            seconds: Its duration, in seconds.
            failed: Whether it raised an exception.
        """
        self.redis_seconds.labels(command).observe(seconds)
        if failed:
            self.redis_errors.labels(command).inc()

    def names(self) -> list[str]:
        """Return the names of all metrics as Prometheus exposes them, sorted."""
        found = set()
        for metric in self.registry.collect():
            suffix = "_total" if metric.type == "counter" else ""
            found.add(metric.name + suffix)
        return sorted(found)


def serve(registry: CollectorRegistry, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve metrics over HTTP at ``/metrics``, in a thread.

    Args:
        registry: The metrics.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.

    Returns:
        The port, and a function that stops serving.

    Raises:
        OSError: The port is taken.
    """
    server, thread = start_http_server(port, host, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
