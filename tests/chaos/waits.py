"""Checks how long clients and training steps waited, and the multipliers in force."""

from __future__ import annotations

import math

from tests.chaos import values
from tests.chaos.history import FOREVER_NS, History
from tests.chaos.violations import Violation

_NS = 1e-9


def overlong_waits(history: History) -> list[Violation]:
    """Return waits beyond the deadline and invalid multipliers in force as violations.

    The history's ``plan`` has the deadline and the slack for pauses of the machine itself.
    """
    plan = history.of("plan")[-1]
    max_wait_s = plan["deadline_s"] + plan["slack_s"]
    end_ns = history.of("end")[-1]["t"]
    violations = []
    for operation in history.operations:
        returned_ns = operation.returned_ns
        if returned_ns == FOREVER_NS:
            waited_s = (end_ns - operation.invoked_ns) * _NS
        else:
            waited_s = operation.response["waited_s"]
        if waited_s > max_wait_s:
            violations.append(
                Violation("blocked", f"{operation.id} {operation.kind}: waited {waited_s:.2f} s")
            )
    least, most = values.bounds(None)
    for steps in history.of("steps"):
        violations += [
            Violation("blocked", f"{steps['job']}: a step took {seconds:.2f} s")
            for seconds in steps["seconds"]
            if seconds > max_wait_s
        ]
        in_force = steps["multipliers"]
        if not all(math.isfinite(each) and least <= each <= most for each in in_force):
            violations.append(Violation("non_finite", f"{steps['job']}: trained with {in_force}"))
    violations += [
        Violation("blocked", f"{note['job']}: did not end when it was stopped")
        for note in history.of("hung")
    ]
    return violations
