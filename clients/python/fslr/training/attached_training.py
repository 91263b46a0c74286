"""What attachments and recorders of every framework have in common.

They own the parts of their framework. What users read of a run, its state dict and the context
manager are the same for all of them, and stand here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.errors import AttachError
from fslr.training.advised_run import AdvisedRun
from fslr.training.cadence import Cadence
from fslr.training.checkpoints import Stateful, load_all
from fslr.training.estimate import RateEstimate
from fslr.training.explanation import explanation
from fslr.training.group_advice import GroupAdvice
from fslr.training.recipe_in_force import NO_RECIPE, RecipeInForce
from fslr.training.recording import Provenance, Recording


class MeasuredRun(Protocol):
    """An advised run, or a recording."""

    @property
    def cadence(self) -> Cadence:
        """When steps are measured, and the number of steps and failures."""
        ...

    @property
    def estimate(self) -> RateEstimate | None:
        """The newest measurement, or None."""
        ...


class RoutedMeter(Protocol):
    """A meter that measures some groups by a slow route."""

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of these groups, with the reason."""
        ...


class MeasuredTraining(ABC):
    """A training whose steps are measured.

    Args:
        run: What the steps are reported to.
        meter: Measures them.
        parts: What a checkpoint keeps, by name.
    """

    def __init__(self, run: MeasuredRun, meter: RoutedMeter, parts: Mapping[str, Stateful]) -> None:
        self._measured_run = run
        self._routed_meter = meter
        self._parts = parts

    @property
    def estimate(self) -> RateEstimate | None:
        """The newest measurement, or None before the first."""
        return self._measured_run.estimate

    @property
    def step(self) -> int:
        """Number of optimizer steps so far."""
        return self._measured_run.cadence.step

    @property
    def failures(self) -> int:
        """Number of steps that were due and could not be measured, or that were not scaled."""
        return self._measured_run.cadence.failures

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured by a slow route, with the reason.

        Empty before the first measurement. See docs/explanation/measurement.md for what to do.
        """
        return self._routed_meter.slow_groups

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied and pickled: it belongs to one training in one process.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled, because it belongs to a training "
            "in this process; save its state_dict(), or keep it outside of what is copied"
        )

    @abstractmethod
    def close(self) -> None:
        """Leave later steps alone; what is known stays readable."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs so that a resumed training continues as this one would."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called; if it raises, nothing has changed.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state was not saved from the same kind of object, for a model with
                these groups, by this version.
            KeyError: An entry is missing.
        """
        load_all(self._parts, state)


class AdvisedTraining(MeasuredTraining):
    """A training that an advisor advises.

    Args:
        run: The advised run.
        meter: Measures the steps.
        parts: What a checkpoint keeps, by name, besides the run and the recipe.
        recipe: The recipe that the run follows, if it follows one.
    """

    def __init__(
        self,
        run: AdvisedRun,
        meter: RoutedMeter,
        parts: Mapping[str, Stateful],
        *,
        recipe: RecipeInForce | None = None,
    ) -> None:
        kept = {"run": run, **parts}
        super().__init__(run, meter, kept if recipe is None else {**kept, "recipe": recipe})
        self._run = run
        self._recipe = recipe

    @property
    def multipliers(self) -> list[float]:
        """The recommended factors on the scheduled learning rates, in layout order."""
        return self._run.multipliers

    @property
    def answer(self) -> pb.RecommendLRResponse | None:
        """The newest answer, or None; always None on ranks that do not talk to the advisor."""
        return self._run.answer

    def report_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Store values of the run's own metrics, such as a validation accuracy, with the run.

        They are shown next to the rates. They are sent in the background: this neither waits for
        the advisor nor raises. What cannot be stored is left out with a warning.

        Args:
            step: Optimizer steps completed before the values were measured, such as ``step`` of
                this attachment. If a metric is reported twice for a step, the later value counts.
            values: The values by the metric's name: numbers, or arrays with one, which are read at
                once. A value that is not finite is shown as a gap. A run has at most 100 metrics,
                whose names have at most 128 characters.
        """
        self._run.report_metrics(step, values)

    @property
    def stores_metrics(self) -> bool:
        """Whether :meth:`report_metrics` has an effect here.

        It has none if the run has no name, if the advisor stores no metrics, and on ranks that do
        not talk to the advisor.
        """
        return self._run.stores_metrics

    @property
    def lost_metrics(self) -> int:
        """Number of reports of metrics that were not stored and will not be."""
        return self._run.lost_metrics

    @property
    def unanswered(self) -> int:
        """Number of measurements without an answer, or with one that cannot be applied."""
        return self._run.unanswered

    def by_name(self) -> dict[str, GroupAdvice]:
        """Return what is known about each group, by its name, in layout order.

        On ranks that do not talk to the advisor, outcomes and references are None.
        """
        found = self._run.by_name()
        return found if self._recipe is None else self._recipe.completed(found)

    def explain(self) -> str:
        """Return a table of what multipliers and settings come from, for people to read.

        Its columns ``recipe`` and ``measured`` are factors on the learning rate: what the recipe of
        the run says, and the profile's unit rate divided by the measured one. Groups of one role
        share a row. Columns of settings that do not change are left out; ``-``: not known.
        """
        recipe = self._recipe and self._recipe.recipe
        title = f"{self!r}, {f'recipe {recipe.name}' if recipe else 'no recipe'}"
        return explanation(self.by_name(), title, self._run.roles)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs so that a resumed training continues as this one would.

        It holds plain values, without tensors; in JAX they can be written as JSON. The multipliers
        in force are part of it. An answer that is under way is not: the next one comes with the
        next measurement.
        """
        return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called; if it raises, nothing has changed.

        A run continues with the recipe of its checkpoint, and initial weights are not scaled again.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state was not saved from the same kind of object, for a model with
                these groups, by this version.
            KeyError: An entry is missing.
        """
        # Checkpoints from before there were recipes or states of rounds have none.
        super().load_state_dict({"recipe": NO_RECIPE, "rounds": {}, **state})

    def __repr__(self) -> str:
        """Return the attachment in a few words: profile, step, groups and multipliers."""
        return repr(self._run).replace(type(self._run).__name__, type(self).__name__, 1)


class RecordedTraining(MeasuredTraining):
    """A training that is recorded.

    Args:
        recording: The recording.
        meter: Measures the steps.
        parts: What a checkpoint keeps, by name, besides the recording.
        provenance: Where the profile comes from; a string names the model only.
        peak_learning_rate: Returns the largest scheduled learning rate so far, where the recording
            does not see those of all steps.
    """

    def __init__(
        self,
        recording: Recording,
        meter: RoutedMeter,
        parts: Mapping[str, Stateful],
        *,
        provenance: Provenance | str | None,
        peak_learning_rate: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(recording, meter, {"run": recording, **parts})
        self._recording = recording
        self._provenance = as_provenance(provenance)
        self._peak_learning_rate = peak_learning_rate
        recording.check_provenance(self._provenance)

    def profile(
        self,
        provenance: Provenance | str | None = None,
        *,
        base_learning_rate: float | None = None,
        labels: Mapping[str, str] | None = None,
        docs: str = "",
        policy: policy_pb2.Policy | None = None,
        role_templates: Sequence[str] = (),
    ) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            provenance: Where it comes from. A string names the model only. Default: the recorder's.
            base_learning_rate: The learning rate to transfer, absolute. Default: the largest
                scheduled one.
            labels: Key-value pairs to filter lists by.
            docs: A written guideline, in Markdown.
            policy: The rules for runs on the profile.
            role_templates: How block indices are read from names, where they are not found
                automatically: beginnings of names with ``*`` for each index.

        Raises:
            MeasurementError: No step was measured.
        """
        self._note_learning_rate()
        return self._recording.profile(
            as_provenance(provenance) or self._provenance or Provenance(""),
            base_learning_rate=base_learning_rate,
            labels=labels,
            docs=docs,
            policy=policy,
            role_templates=role_templates,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; what was recorded so far is part of it."""
        self._note_learning_rate()
        return super().state_dict()

    def _note_learning_rate(self) -> None:
        if self._peak_learning_rate is not None:
            self._recording.note_learning_rate(self._peak_learning_rate())


def as_provenance(provenance: Provenance | str | None) -> Provenance | None:
    """Return where a profile comes from, as a user said it.

    Raises:
        AttachError: It is something else.
    """
    if provenance is None or isinstance(provenance, Provenance):
        return provenance
    if not isinstance(provenance, str):
        raise AttachError(
            f"provenance is {provenance!r}; it must be a fslr.Provenance, or the model in words"
        )
    return Provenance(provenance)
