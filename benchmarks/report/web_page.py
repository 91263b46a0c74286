"""The figures of the web page in words and in a table."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table


def web_page(figures: dict[str, Any]) -> str:
    """Return how fast the page of a large run is, and what open pages take."""
    groups, points = f"{figures['groups']:,}", f"{figures['points']:,}"
    pages, streams = figures["sse_clients"], f"{figures['streams']:,}"
    low, high = figures["rpc_spread"]
    rows = [
        ("first view in a browser, nothing cached", f"{figures['first_view_ms'] / 1000:.2f} s"),
        *_cpu_times(figures),
        ("sizes of its answers", f"{figures['bytes'] / 1000:.0f} kB"),
        ("time to draw the charts again", f"{figures['draw_ms_10k_groups']:.0f} ms"),
        ("time until the whole history is shown", f"{figures['read_s']:.1f} s"),
        ("memory of the page's process then", f"{figures['web_mib_large_run']:.0f} MiB"),
        (
            f"memory of the page's process, {pages} open pages",
            f"{figures['web_mib_with_pages']:.0f} MiB",
        ),
        (
            f"RPCs per second with {pages} open pages, to those without a page",
            f"{figures['rpc_ratio']:.2f} ({low:.2f} to {high:.2f})",
        ),
    ]
    return (
        f"A run of {groups} groups and {points} measurements, of which a new process has read "
        f"nothing; and {pages} open pages of 20 runs beside {streams} streams that send as fast as "
        f"they are answered. The pages received {figures['sse_events_per_s']:,.0f} measurements "
        "per second. The last ratio is from paired rounds of two services, one with the pages and "
        "one without a page, on cores that the services, Redis, the callers and the readers "
        f"share.\n\n{table(('the page', 'value'), rows)}"
    )


def _cpu_times(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of what the browser computes; earlier figures do not have them."""
    if "first_view_script_ms" not in figures:
        return []
    script, layout = figures["first_view_script_ms"], figures["first_view_layout_ms"]
    return [
        ("CPU time of the page's scripts until then", f"{script:.0f} ms"),
        ("CPU time of styles and layout until then", f"{layout:.0f} ms"),
    ]
