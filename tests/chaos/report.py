"""The printed report of a run."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.chaos.history import OUTCOMES, History
from tests.chaos.violations import Violation

_NS = 1e-9
_MAX_PRINTED = 20  # violations; the history has all of them


def injected(history: History) -> int:
    """Return the number of faults."""
    return len(history.of("fault"))


def recoveries_s(history: History) -> Mapping[str, Sequence[float]]:
    """Return the times from the end of each fault to the next successful call, by kind of fault."""
    succeeded = sorted(
        (operation.invoked_ns, operation.returned_ns)
        for operation in history.operations
        if operation.ok
    )
    earliest: list[int] = [returned_ns for _, returned_ns in succeeded]
    for i in range(len(earliest) - 2, -1, -1):
        earliest[i] = min(earliest[i], earliest[i + 1])
    took: dict[str, list[float]] = defaultdict(list)
    for healed in history.of("healed"):
        i = bisect_left(succeeded, (healed["t"], 0))
        if i < len(earliest):
            took[healed["fault"]].append((earliest[i] - healed["t"]) * _NS)
    return took


def lines(history: History, violations: Sequence[Violation]) -> Iterator[str]:
    """Iterate over the lines of a phase's report.

    Args:
        history: The history.
        violations: The violations in it.
    """
    yield f"  {'operation':<16}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES)
    outcomes = Counter((each.kind, each.outcome) for each in history.operations)
    for kind in sorted({each.kind for each in history.operations}):
        yield f"  {kind:<16}" + "".join(f"{outcomes[kind, o]:>9,}" for o in OUTCOMES)
    steps = [seconds for note in history.of("steps") for seconds in note["seconds"]]
    if steps:
        yield f"  {len(steps):,} training steps, the longest {max(steps):.3f} s"
    stale = sum(each.response.get("stale", False) for each in history.operations)
    yield f"  {stale:,} answers from memory (stale)"
    took = recoveries_s(history)
    times = Counter(note["fault"] for note in history.of("fault"))
    if times:
        yield f"  {'fault':<24}{'times':>6}{'recovery, median':>18}{'longest':>10}"
    for fault, count in sorted(times.items()):
        spans = took.get(fault, [])
        middle = f"{statistics.median(spans):.3f} s" if spans else "-"
        longest = f"{max(spans):.3f} s" if spans else "-"
        yield f"  {fault:<24}{count:>6}{middle:>18}{longest:>10}"
    for note in history.of("broken"):
        yield f"  BROKEN {note['client']}: {note['error']}"
    for violation in violations[:_MAX_PRINTED]:
        yield f"  VIOLATION {violation.count}: {violation.what}"
    if len(violations) > _MAX_PRINTED:
        yield f"  ... and {len(violations) - _MAX_PRINTED} more violations"
