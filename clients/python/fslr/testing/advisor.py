"""An advisor whose answers a test gives."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2, run_service_pb2
from fslr.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    RecipeNotFoundError,
    UnavailableError,
)
from fslr.testing.answers import answered, mapped, names_of, started, version_of
from fslr.testing.factors import Factors, Script, check_range, factors_of, values_of
from fslr.testing.recipe import FakeRecipe


class FakeAdvisor:
    """An advisor for tests: the answers are given, and what it receives is kept.

    It has the interface :class:`fslr.Advisor`, so pass it wherever an advisor is expected, such as
    ``fslr.torch.attach(..., advisor=FakeAdvisor({"head.*": 0.5}))``. It may advise several runs,
    and be called from several threads. Its public attributes may be changed at any time.

    Args:
        multipliers: The multipliers of each answer, or a script such as :func:`by_step`. Each is
            finite and above 0. None: 1, or for runs that follow a recipe its factors on learning
            rates.
        priors: The multipliers to start with, before anything is measured; 0: none. Runs that
            follow a recipe start with its factors instead.
        interval_steps: Steps from a measurement to the next one, >= 1. A run measures exactly then
            if it is attached with ``max_overhead=None`` or ``answers="wait"``.
        weight_decay: What multipliers do to weight decay.
        probes: Number of probes to ask for; 0: the client's choice.
        warnings: What a run is warned of at its start.
        delay_s: Time until an answer comes, in seconds, >= 0.
        deadline_s: Maximum time that a caller waits for an answer, in seconds.
        recipes: The recipes that there are, by the name that runs ask for, as in
            ``attach(recipe="mup-adam")``.
        policy_recipe: Name of the recipe of runs that ask for none, as if the profile's policy
            named it. Empty: they follow none.

    Attributes:
        openings: The openings of all runs, in the order in which the runs were opened. Sessions
            that only ask for a recipe are not runs.
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
        multipliers: Factors | Script | None = None,
        *,
        priors: Factors = 0.0,
        interval_steps: int = 1_000,
        weight_decay: policy_pb2.WeightDecayRule.ValueType = policy_pb2.WEIGHT_DECAY_RULE_COUPLED,
        probes: int = 0,
        warnings: Sequence[str] = (),
        delay_s: float = 0.0,
        deadline_s: float = 10.0,
        recipes: Mapping[str, FakeRecipe] | None = None,
        policy_recipe: str = "",
    ) -> None:
        if interval_steps < 1:
            raise ValueError(f"interval_steps is {interval_steps}; it must be at least 1")
        if not (math.isfinite(delay_s) and delay_s >= 0):
            raise ValueError(f"delay_s is {delay_s}; it must be a number of seconds, at least 0")
        if multipliers is not None and not callable(multipliers):
            check_range("a multiplier", values_of(multipliers), can_be_zero=False)
        check_range("a prior", values_of(priors), can_be_zero=True)
        self.multipliers = multipliers
        self.priors = priors
        self.interval_steps = interval_steps
        self.weight_decay = weight_decay
        self.probes = probes
        self.warnings = list(warnings)
        self.delay_s = delay_s
        self.deadline_s = deadline_s
        self.recipes = dict(recipes or {})
        self.policy_recipe = policy_recipe
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
            layouts = {tuple(names_of(opening)) for opening in self.openings}
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
            RecipeNotFoundError: The run asks for a recipe that the advisor does not have.
            ValueError: The multipliers, the priors or the recipe do not fit the layout.
        """
        with self._changed:
            self._raise_failure()
            names, given = names_of(opening), self.multipliers
            priors = self._priors(opening)
            found = (
                [1.0] * len(names)
                if given is None or callable(given)
                else factors_of(given, names, "multipliers")
            )
            return mapped(
                opening,
                found,
                priors,
                recipe=self._recipe_name(opening),
                rule=self.weight_decay,
                warnings=self.warnings,
            )

    def open_run(self, opening: pb.RunOpening) -> FakeSession:
        """Return a session for a run."""
        kept = pb.RunOpening()
        kept.CopyFrom(opening)
        with self._changed:
            self.openings.append(kept)
        return FakeSession(self, kept)

    def _recipe_name(self, opening: pb.RunOpening) -> str:
        """Return the name of the recipe that a run follows; empty: it follows none."""
        name = opening.recipe or self.policy_recipe
        return version_of(name) if "/" in name else name

    def _recipe(self, opening: pb.RunOpening) -> FakeRecipe | None:
        """Return the recipe that a run follows, if it follows one.

        Raises:
            RecipeNotFoundError: The advisor does not have it.
        """
        name = opening.recipe or self.policy_recipe
        if not name:
            return None
        if name not in self.recipes:
            known = ", ".join(self.recipes) or "none"
            raise RecipeNotFoundError(
                f"there is no recipe {name}: the recipes of this FakeAdvisor are {known}; pass "
                f"recipes={{{name!r}: FakeRecipe(...)}}",
                "RECIPE_NOT_FOUND",
            )
        return self.recipes[name]

    def _priors(self, opening: pb.RunOpening) -> list[float]:
        """Return what each group's multiplier starts with; 0: nothing is said.

        Raises:
            RecipeNotFoundError: The advisor does not have the run's recipe.
            ValueError: The recipe or the priors do not fit the layout.
        """
        recipe = self._recipe(opening)
        if recipe is not None:
            return recipe.learning_rates(opening.layout)
        return [prior or 0.0 for prior in factors_of(self.priors, names_of(opening), "priors")]

    def _start(self, session: FakeSession) -> pb.RecommendLRResponse:
        """Return the answer to an opening, before anything is measured."""
        opening = session.opening
        with self._changed:
            # A session that asks for a recipe is a run only if it measures later.
            self.openings = [kept for kept in self.openings if kept is not opening]
            self._wait(session)
            self._raise_failure()
            recipe, priors = self._recipe(opening), self._priors(opening)
            return started(
                opening, recipe, priors, name=self._recipe_name(opening), rule=self.weight_decay
            )

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
        names = names_of(session.opening)
        if len(measurement.unit_rates) != len(names):
            raise InvalidRequestError(
                f"measurement.unit_rates has {len(measurement.unit_rates)} values; send one for "
                f"each of the {len(names)} groups",
                "INVALID_VALUE",
            )
        kept = pb.Measurement()
        kept.CopyFrom(measurement)
        with self._changed:
            if not any(opening is session.opening for opening in self.openings):
                self.openings.append(session.opening)
            self.measurements.append(kept)
            self._wait(session)
            self._raise_failure()
            priors = self._priors(session.opening)
            given = self.multipliers
            if given is None:
                has_recipe = self._recipe(session.opening) is not None
                given = [prior or 1.0 for prior in priors] if has_recipe else 1.0
            if callable(given):
                given = given(measurement)
            found = factors_of(given, names, "multipliers")
            check_range("a multiplier", [f for f in found if f is not None], can_be_zero=False)
            answer = answered(
                session.opening,
                measurement,
                found,
                priors,
                recipe=self._recipe_name(session.opening),
                rule=self.weight_decay,
            )
            answer.next_measurement_step = measurement.step + self.interval_steps
            answer.probes = self.probes
            answer.warnings.extend(self._next_warnings)
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

    def start(self) -> pb.RecommendLRResponse:
        """Return what is known before the first step: the factors of the run's recipe.

        Raises:
            DeadlineExceededError: The advisor is paused, or answers too late.
            RecipeNotFoundError: The run asks for a recipe that the advisor does not have.
            UnavailableError: The session is closed.
            ValueError: The recipe or the priors do not fit the layout.
        """
        return self._advisor._start(self)  # noqa: SLF001 - the two are one thing

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
            Exception: The failure that the test asked for.
        """
        self._advisor._store(reports)  # noqa: SLF001 - the two are one thing

    def close(self) -> None:
        """End the session; a call under way ends as well."""
        with self._advisor._changed:  # noqa: SLF001
            self.is_closed = True
            self._advisor._changed.notify_all()  # noqa: SLF001
