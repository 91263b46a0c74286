"""An advisor for your own tests: it answers as you say, without a service and without a profile.

It needs the base installation only, and no test framework. For tests against a real service there
are the pytest fixtures of ``advisor.local.pytest_plugin``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2, run_service_pb2
from fslr.errors import DeadlineExceededError, InvalidRequestError, UnavailableError

Factors = float | Iterable[float] | Mapping[str, float]
"""One factor for all groups; one for each group in layout order; or one by pattern of names.

A pattern is a shell pattern such as ``blocks.*.weight``, and the first that matches a group's name
applies. Groups that no pattern matches are treated as groups without a counterpart in the profile.
"""
Script = Callable[[pb.Measurement], Factors]
"""Returns the factors to answer a measurement with."""

_DIGEST = "0" * 64


def by_step(steps: Mapping[int, Factors]) -> Script:
    """Return a script that changes its factors at given steps.

    Args:
        steps: The factors from a step on, such as ``{0: 1.0, 100: {"head.*": 0.5}}``.

    Raises:
        ValueError: There are no factors for step 0.
    """
    if 0 not in steps:
        raise ValueError(f"the steps are {sorted(steps)}; say which multipliers hold from step 0")

    def script(measurement: pb.Measurement) -> Factors:
        return steps[max(step for step in steps if step <= measurement.step)]

    return script


class FakeAdvisor:
    """An advisor for tests: the answers are given, and what it receives is kept.

    It has the interface :class:`fslr.Advisor`, so pass it wherever an advisor is expected, such as
    ``fslr.torch.attach(..., advisor=FakeAdvisor({"head.*": 0.5}))``. It may advise several runs,
    and be called from several threads. Its public attributes may be changed at any time.

    Args:
        multipliers: The multipliers of each answer, or a script such as :func:`by_step`. Each is
            finite and above 0.
        priors: The multipliers to start with, before anything is measured; 0: none.
        interval_steps: Steps from a measurement to the next one, >= 1. A run measures exactly then
            if it is attached with ``max_overhead=None`` or ``answers="wait"``.
        weight_decay: What multipliers do to weight decay.
        probes: Number of probes to ask for; 0: the client's choice.
        warnings: What a run is warned of at its start.
        delay_s: Time until an answer comes, in seconds, >= 0.
        deadline_s: Maximum time that a caller waits for an answer, in seconds.

    Attributes:
        openings: The openings of all runs, in the order in which the runs were opened.
        measurements: The measurements of all runs, in the order in which they arrived. A
            measurement that gets no answer is kept, too.
        answers: The answers, in the order in which they were given.
        metrics: The metrics that runs reported, in the order in which they arrived.

    Raises:
        ValueError: A value is out of its range. :meth:`validate_layout` raises it as well, if the
            multipliers or priors do not fit the layout: there are more or fewer of them than
            groups, or a pattern matches no group.
    """

    def __init__(
        self,
        multipliers: Factors | Script = 1.0,
        *,
        priors: Factors = 0.0,
        interval_steps: int = 1_000,
        weight_decay: policy_pb2.WeightDecayRule.ValueType = policy_pb2.WEIGHT_DECAY_RULE_COUPLED,
        probes: int = 0,
        warnings: Sequence[str] = (),
        delay_s: float = 0.0,
        deadline_s: float = 10.0,
    ) -> None:
        if interval_steps < 1:
            raise ValueError(f"interval_steps is {interval_steps}; it must be at least 1")
        if not (math.isfinite(delay_s) and delay_s >= 0):
            raise ValueError(f"delay_s is {delay_s}; it must be a number of seconds, at least 0")
        if not callable(multipliers):
            _check("a multiplier", _values(multipliers), can_be_zero=False)
        _check("a prior", _values(priors), can_be_zero=True)
        self.multipliers = multipliers
        self.priors = priors
        self.interval_steps = interval_steps
        self.weight_decay = weight_decay
        self.probes = probes
        self.warnings = list(warnings)
        self.delay_s = delay_s
        self.deadline_s = deadline_s
        self.openings: list[pb.RunOpening] = []
        self.measurements: list[pb.Measurement] = []
        self.answers: list[pb.RecommendLRResponse] = []
        self.metrics: list[run_service_pb2.MetricReport] = []
        self._changed = threading.Condition()
        self._is_paused = False
        self._failure: Exception | None = None
        self._failures_left: int | None = None
        self._next_warnings: list[pb.Warning] = []

    def fail(self, error: Exception, *, times: int | None = None) -> None:
        """Let calls fail from now on: :meth:`validate_layout`, and requests for recommendations.

        Args:
            error: The exception that each call raises, such as
                ``fslr.UnavailableError("no route to the advisor")``.
            times: How many calls fail, >= 1. None: all, until :meth:`recover` is called.

        Raises:
            ValueError: ``times`` is below 1.
        """
        if times is not None and times < 1:
            raise ValueError(f"times is {times}; it must be at least 1, or None for all calls")
        with self._changed:
            self._failure, self._failures_left = error, times

    def recover(self) -> None:
        """Answer again after :meth:`fail`."""
        with self._changed:
            self._failure = None

    def warn(
        self,
        message: str,
        kind: pb.WarningKind.ValueType = pb.WARNING_KIND_UNSPECIFIED,
    ) -> None:
        """Send a warning with the next answer.

        Args:
            message: The warning.
            kind: Its kind.
        """
        with self._changed:
            self._next_warnings.append(pb.Warning(kind=kind, message=message))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold answers back until the block ends, at most ``deadline_s`` seconds for each.

        The first measurement of a run, and each one with ``answers="wait"``, is waited for, so take
        the first step before the block.
        """
        with self._changed:
            self._is_paused = True
        try:
            yield
        finally:
            with self._changed:
                self._is_paused = False
                self._changed.notify_all()

    def unit_rates(self) -> list[dict[str, float]]:
        """Return the unit rates of each measurement, by the groups' names.

        Raises:
            ValueError: Runs with different groups were advised, so names are ambiguous.
        """
        with self._changed:
            layouts = {tuple(_names(opening)) for opening in self.openings}
            if len(layouts) > 1:
                raise ValueError(
                    f"{len(layouts)} different layouts were advised; read measurements instead, or "
                    "use one FakeAdvisor for each model"
                )
            return [
                dict(zip(names, measurement.unit_rates, strict=True))
                for names in layouts
                for measurement in self.measurements
            ]

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Return that the layout maps, except for groups that no pattern matches.

        Raises:
            ValueError: The multipliers or the priors do not fit the layout.
        """
        with self._changed:
            self._raise_failure()
            names, given = _names(opening), self.multipliers
            found = [1.0] * len(names) if callable(given) else _factors(given, names, "multipliers")
            priors = _factors(self.priors, names, "priors")
            mappings = [
                profile_service_pb2.GroupMapping(
                    group=name,
                    role=group.role,
                    sources=[] if factor is None else [name],
                    depth_factor=float(factor is not None),
                    match=policy_pb2.MATCH_NONE if factor is None else policy_pb2.MATCH_NAME,
                    prior=prior or 0.0,
                )
                for name, group, factor, prior in zip(
                    names, opening.layout.groups, found, priors, strict=True
                )
            ]
            return profile_service_pb2.ValidateLayoutResponse(
                profile=_version_of(opening.profile),
                mappings=mappings,
                unmatched=[
                    name for name, factor in zip(names, found, strict=True) if factor is None
                ],
                warnings=self.warnings,
                weight_decay=self.weight_decay,
            )

    def open_run(self, opening: pb.RunOpening) -> FakeSession:
        """Return a session for a run."""
        kept = pb.RunOpening()
        kept.CopyFrom(opening)
        with self._changed:
            self.openings.append(kept)
        return FakeSession(self, kept)

    def _store(self, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        with self._changed:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            self.metrics.extend(reports)

    def _raise_failure(self) -> None:
        error = self._failure
        if error is None:
            return
        if self._failures_left is not None:
            self._failures_left -= 1
            if not self._failures_left:
                self._failure = None
        raise error.with_traceback(None)

    def _wait(self, session: FakeSession) -> None:
        """Wait until the answer is due.

        Raises:
            DeadlineExceededError: It is not due before the deadline.
            UnavailableError: The session was closed.
        """
        start = time.monotonic()
        due, deadline = start + self.delay_s, start + self.deadline_s
        while not session.is_closed:
            now = time.monotonic()
            if now >= due and not self._is_paused:
                return
            if now >= deadline:
                raise DeadlineExceededError(
                    f"the fake advisor did not answer within {self.deadline_s} s: it is paused, or "
                    f"delay_s is too long ({self.delay_s} s)"
                )
            self._changed.wait((deadline if self._is_paused else min(due, deadline)) - now)
        raise UnavailableError("the run's session is closed; open the run again")

    def _answer(self, session: FakeSession, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        names = _names(session.opening)
        if len(measurement.unit_rates) != len(names):
            raise InvalidRequestError(
                f"measurement.unit_rates has {len(measurement.unit_rates)} values; send one for "
                f"each of the {len(names)} groups",
                "INVALID_VALUE",
            )
        kept = pb.Measurement()
        kept.CopyFrom(measurement)
        with self._changed:
            self.measurements.append(kept)
            self._wait(session)
            self._raise_failure()
            given = self.multipliers
            found = _factors(given(measurement) if callable(given) else given, names, "multipliers")
            _check("a multiplier", [f for f in found if f is not None], can_be_zero=False)
            held = measurement.multipliers or [1.0] * len(names)
            multipliers = [h if f is None else f for f, h in zip(found, held, strict=True)]
            matched = [factor is not None for factor in found]
            answer = pb.RecommendLRResponse(
                step=measurement.step,
                profile=_version_of(session.opening.profile),
                digest=_DIGEST,
                multipliers=multipliers,
                outcomes=[
                    policy_pb2.OUTCOME_MATCHED if is_matched else policy_pb2.OUTCOME_UNMATCHED
                    for is_matched in matched
                ],
                reference_unit_rates=[
                    (factor or 0.0) * rate
                    for factor, rate in zip(found, measurement.unit_rates, strict=True)
                ],
                next_measurement_step=measurement.step + self.interval_steps,
                probes=self.probes,
                warnings=self._next_warnings,
                recommended=matched,
                priors=[prior or 0.0 for prior in _factors(self.priors, names, "priors")],
                weight_decay=self.weight_decay,
            )
            self._next_warnings = []
            self.answers.append(answer)
            return answer


class FakeSession:
    """One run's session with a :class:`FakeAdvisor`.

    Args:
        advisor: The advisor.
        opening: The run.

    Attributes:
        opening: The run.
        is_closed: Whether the session was closed.
    """

    def __init__(self, advisor: FakeAdvisor, opening: pb.RunOpening) -> None:
        self._advisor = advisor
        self.opening = opening
        self.is_closed = False

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        Raises:
            DeadlineExceededError: The advisor is paused, or answers too late.
            InvalidRequestError: The measurement has not one unit rate for each group.
            UnavailableError: The session is closed.
            ValueError: The multipliers do not fit the layout, or are out of range.
        """
        return self._advisor._answer(self, measurement)  # noqa: SLF001 - the two are one thing

    def report_metrics(self, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        """Keep the reports in the advisor's ``metrics``.

        Raises:
            Exception: The advisor was told to fail.
        """
        self._advisor._store(reports)  # noqa: SLF001 - the two are one thing

    def close(self) -> None:
        """End the session; a call under way ends as well."""
        with self._advisor._changed:  # noqa: SLF001
            self.is_closed = True
            self._advisor._changed.notify_all()  # noqa: SLF001


def _names(opening: pb.RunOpening) -> list[str]:
    return [group.name for group in opening.layout.groups]


def _version_of(profile: str) -> str:
    """Return a profile's name with a version: the given one, else 1."""
    name, _, suffix = profile.partition("@")
    return profile if suffix.isdigit() else f"{name}@1"


def _values(factors: Factors) -> list[float]:
    if isinstance(factors, Mapping):
        return list(factors.values())
    return list(factors) if isinstance(factors, Iterable) else [factors]


def _check(what: str, values: Sequence[float], *, can_be_zero: bool) -> None:
    """Check the range of multipliers or priors.

    Raises:
        ValueError: A value is out of range.
    """
    for value in values:
        if not (math.isfinite(value) and (value > 0 or (can_be_zero and value == 0))):
            least = "at least 0" if can_be_zero else "above 0"
            raise ValueError(f"{what} is {value}; it must be finite and {least}")


def _factors(given: Factors, names: Sequence[str], what: str) -> list[float | None]:
    """Return the factor of each group; None where no pattern matches.

    Raises:
        ValueError: There are more or fewer factors than groups, or a pattern matches no group.
    """
    if isinstance(given, Mapping):
        for pattern in given:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"the pattern {pattern!r} of the {what} matches none of the {len(names)} "
                    f"groups ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
                )
        return [
            next((float(v) for pattern, v in given.items() if fnmatchcase(name, pattern)), None)
            for name in names
        ]
    if isinstance(given, Iterable):
        values: list[float | None] = [float(value) for value in given]
        if len(values) != len(names):
            raise ValueError(
                f"there are {len(values)} {what} and {len(names)} groups; give one for each group, "
                "or patterns of their names"
            )
        return values
    return [float(given)] * len(names)
