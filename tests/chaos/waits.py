"""Judges how long clients and training steps waited."""

from __future__ import annotations

import math

from tests.chaos import values
from tests.chaos.history import FOREVER_NS, History
from tests.chaos.violations import Violation

_NS = 1e-9


def overlong_waits(history: History) -> list[Violation]:
    """Return who waited longer than the deadline, and multipliers in force that must not be.

    The history's ``plan`` says the deadline, and how much more counts as the machine's own pauses.
    """
    plan = history.of("plan")[-1]
    longest_s = plan["deadline_s"] + plan["slack_s"]
    end_ns = history.of("end")[-1]["t"]
    violations = []
    for operation in history.operations:
        returned_ns = operation.returned_ns
        if returned_ns == FOREVER_NS:
            waited_s = (end_ns - operation.invoked_ns) * _NS
        else:
            waited_s = operation.told["waited_s"]
        if waited_s > longest_s:
            violations.append(
                Violation("blocked", f"{operation.id} {operation.kind}: waited {waited_s:.2f} s")
            )
    least, most = values.bounds(None)
    for steps in history.of("steps"):
        violations += [
            Violation("blocked", f"{steps['job']}: a step took {seconds:.2f} s")
            for seconds in steps["seconds"]
            if seconds > longest_s
        ]
        in_force = steps["multipliers"]
        if not all(math.isfinite(each) and least <= each <= most for each in in_force):
            violations.append(Violation("non_finite", f"{steps['job']}: trained with {in_force}"))
    violations += [
        Violation("blocked", f"{note['job']}: did not end when it was asked to")
        for note in history.of("hung")
    ]
    return violations
