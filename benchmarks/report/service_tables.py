"""Tables of what the service handles and costs, rendered from the stored figures."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table


def registry(figures: dict[str, Any]) -> str:
    """Return what many profiles, and large ones, cost."""
    large = figures["large_profile"]
    rows = [
        (
            f"time to {action}: ratio, {figures['profiles']:,} profiles to 10",
            f"{figures[f'{name}_ratio']:.2f}",
        )
        for name, action in (
            ("get", "get a profile"),
            ("alias", "resolve an alias"),
            ("list", "list a page"),
            ("filter", "find one profile by two labels"),
        )
    ]
    size = f"a profile of {large['groups']:,} groups and {large['points']} points"
    rows += [
        (f"{size}: stored size", f"{large['bytes'] / 1e6:.1f} MB"),
        (f"{size}: time to register it through the service", f"{large['register_s']:.1f} s"),
        (f"{size}: time to resolve it for the first time", f"{large['resolve_s']:.1f} s"),
    ]
    return table(("what", "value"), rows)


def sizing(figures: dict[str, Any]) -> str:
    """Return what one process of the service handles, and what it takes."""
    stream, once = figures["stream"], figures["once"]
    rows = [
        ("streams, 100 groups, with telemetry: answers per second", f"{stream['per_second']:,.0f}"),
        ("32 streams, 100 groups, with telemetry: p99 latency", f"{stream['p99_ms']:.0f} ms"),
        ("unary calls, 100 groups: answers per second", f"{once['per_second']:,.0f}"),
        *(
            (f"streams, {int(groups):,} groups: answers per second", f"{per_second:,.0f}")
            for groups, per_second in figures["groups"].items()
        ),
        (
            f"unary calls: throughput ratio, {figures['profiles']:,} stored profiles to 10",
            f"{figures['profiles_ratio']:.2f}",
        ),
        (
            "memory of an open stream, 100 groups",
            f"{figures['bytes_per_stream'] / 1024:.0f} KiB",
        ),
        (
            "memory of a cached profile, 50 groups, 40 points",
            f"{figures['bytes_per_cached_profile'] / 1024:.0f} KiB",
        ),
        (
            "Redis: a measurement of 100 groups with its answer",
            f"{stream['redis_bytes_per_measurement'] / 1024:.1f} KiB",
        ),
        (
            "Redis: a small profile (4 groups, 10 points, an alias)",
            f"{figures['redis_bytes_per_profile'] / 1024:.1f} KiB",
        ),
        ("time from start to first answer", f"{figures['start_s']:.1f} s"),
        ("time of `import fslr`", f"{figures['import_s']:.2f} s"),
    ]
    if figures["workers_2_ratio"] is not None:
        rows.append((
            "throughput ratio, two processes to one",
            f"{figures['workers_2_ratio']:.2f}",
        ))
    return table(("one process", "value"), rows)


def comparison(figures: dict[str, Any]) -> str:
    """Return how the service compares with an echo server and with other services."""
    rows = []
    for kind, name in (("stream", "streams"), ("once", "unary calls")):
        found = figures[kind]
        for key, measure in (("throughput", "throughput"), ("p99", "p99 latency")):
            low, high = found[f"{key}_spread"]
            ratio = f"{found[f'{key}_ratio']:.2f} ({low:.2f} to {high:.2f})"
            rows.append((f"{name}: {measure}, to the echo server", ratio))
    rows += [
        (f"throughput, to {peer}", f"{figures['peers'][key]:,.0f}")
        for key, peer in (
            ("optuna", "Optuna's gRPC storage proxy"),
            ("vizier", "OSS Vizier's service"),
        )
        if figures["peers"][key] is not None
    ]
    return table(("the advisor, compared", "ratio (range over rounds)"), rows)
