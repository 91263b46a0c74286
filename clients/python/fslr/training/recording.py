"""One recording: the measurements of a base run become the content of a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2
from fslr.environment import code_revision, user_name
from fslr.errors import AttachError, MeasurementError
from fslr.training.argument_checks import is_integer
from fslr.training.cadence import Cadence
from fslr.training.checkpoints import check_header, header
from fslr.training.correlations import alike_pairs, correlations
from fslr.training.estimate import RateEstimate
from fslr.training.events import Listeners, Measured, Warned

_KIND = "a recording"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile comes from.

    Registration requires all of it but the loss's name.

    Attributes:
        model: The base model in words.
        width: Its width.
        depth: Its number of blocks.
        dataset: The data in words.
        batch_size: Examples per step.
        loss_name: Name of the loss, such as ``cross-entropy``.
        commit: Revision of the training code. None: that of the git repository of the working
            directory, empty outside of one.
        author: Who recorded it. None: the user of this process.
    """

    model: str
    width: int = 0
    depth: int = 0
    dataset: str = ""
    batch_size: int = 0
    loss_name: str = ""
    commit: str | None = None
    author: str | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the values that registration requires and that are missing."""
        message = self.message("")
        required = ("model", "width", "depth", "dataset", "batch_size", "commit", "author")
        return tuple(name for name in required if not getattr(message, name))

    def message(self, optimizer: str) -> profile_pb2.Provenance:
        """Return the message, with the present time.

        Args:
            optimizer: Name of the optimizer.
        """
        record_time = Timestamp()
        record_time.GetCurrentTime()
        return profile_pb2.Provenance(
            model=self.model,
            optimizer=optimizer,
            batch_size=self.batch_size,
            dataset=self.dataset,
            commit=code_revision() if self.commit is None else self.commit,
            author=user_name() if self.author is None else self.author,
            width=self.width,
            depth=self.depth,
            loss_name=self.loss_name,
            record_time=record_time,
        )


def provenance_warning(provenance: Provenance | None) -> str:
    """Return why a profile with a provenance cannot be registered; empty if it can.

    Args:
        provenance: Where the profile comes from; None: not known yet.
    """
    if provenance is None:
        return (
            "the recorder has no provenance, so it cannot check now whether the profile can be "
            "registered; pass Recorder(..., provenance=fslr.Provenance(...))"
        )
    if not provenance.missing:
        return ""
    return (
        "a profile with this provenance can be saved to a file, but not registered: "
        f"{', '.join(provenance.missing)} missing; add them to fslr.Provenance(...)"
    )


class Recording:
    """Keeps the measurements of every ``every``-th step, and of more steps at the start.

    The additional steps are 1, 2, 4, 8 and so on, during a dense start and while a group that steps
    has the rate 0. So a profile has the rates of layers before zero-initialized ones from the first
    step at which they move an output.

    It knows nothing of a framework: a :class:`.StepCycle`, or a loop of your own, tells it when
    steps begin and what was measured.

    Args:
        layout: The model's groups.
        optimizer: Name of the optimizer.
        every: Steps between measurements, >= 1; or a function that returns them for a measured
            step.
        dense_start_steps: While the training is younger than this, >= 0, it is measured again once
            its number of steps has doubled. 0: no dense start.
        listeners: Receive what happens.

    Attributes:
        cadence: When steps are measured, and the number of steps and failures.
        estimate: The newest measurement, or None.

    Raises:
        AttachError: ``every`` is below 1, or ``dense_start_steps`` is below 0.
    """

    def __init__(
        self,
        layout: layout_pb2.Layout,
        *,
        optimizer: str,
        every: int | Callable[[int], int],
        dense_start_steps: int = 0,
        listeners: Listeners,
    ) -> None:
        if not (callable(every) or is_integer(every, least=1)):
            raise AttachError(f"every is {every!r}; measure every step (1) or less often")
        if not is_integer(dense_start_steps, least=0):
            raise AttachError(
                f"dense_start_steps is {dense_start_steps!r}; use 0 for no dense start, or the "
                "number of steps that it lasts"
            )
        self.cadence = Cadence(listeners, strict=True)
        self.estimate: RateEstimate | None = None
        self._layout = layout
        self._groups = [group.name for group in layout.groups]
        self._optimizer = optimizer
        self._every = every
        self._dense_start_steps = dense_start_steps
        self._regular_step = 0  # the next step to measure, apart from additional ones
        self._listeners = listeners
        self._pairs = alike_pairs(self._groups)
        self._points: list[profile_pb2.ProfilePoint] = []
        self._max_learning_rate = 0.0
        self._excludes_weight_decay: bool | None = None
        self._mask: str | None = None

    def check_provenance(self, provenance: Provenance | None) -> None:
        """Warn if a profile with a provenance could not be registered.

        Args:
            provenance: Where the profile comes from; None: not known yet.
        """
        if warning := provenance_warning(provenance):
            self._listeners.emit(Warned(self.cadence.step, warning))

    @property
    def factors(self) -> list[float]:
        """The factors to apply to the learning rates: all 1."""
        return [1.0] * len(self._groups)

    @property
    def keeps_decay(self) -> bool:
        """Whether the weight decay stays what the settings say: yes, as for any factors of 1."""
        return True

    def begin_step(self, learning_rates: Callable[[], Sequence[float]]) -> None:
        """Decide whether the step is measured.

        Args:
            learning_rates: Returns the scheduled learning rate of each group.
        """
        rates = learning_rates()
        self._max_learning_rate = max(self._max_learning_rate, *rates)
        self.cadence.begin_step(lambda: rates)

    def note_learning_rate(self, learning_rate: float) -> None:
        """Take note of a scheduled learning rate that was not known when its step began.

        Args:
            learning_rate: The learning rate, absolute.
        """
        self._max_learning_rate = max(self._max_learning_rate, learning_rate)

    def measured(
        self,
        estimate: RateEstimate,
        learning_rates: Sequence[float],
        *,
        can_correct: bool = True,  # noqa: ARG002 - a recording corrects nothing
    ) -> None:
        """Keep the measurement of the step under way.

        Args:
            estimate: The measurement.
            learning_rates: The scheduled learning rate of each group.
            can_correct: Has no effect.

        Raises:
            MeasurementError: Earlier steps were measured with their weight decay and this one was
                not, or the other way round; or they were measured with a different mask.
        """
        if self._excludes_weight_decay not in {None, estimate.excludes_weight_decay}:
            raise MeasurementError(
                f"exclude_weight_decay is {estimate.excludes_weight_decay}, and it was "
                f"{self._excludes_weight_decay} before the recording was resumed, so unit rates "
                "cannot be compared; resume it with the same option, or start a new recording"
            )
        if self._mask not in {None, estimate.mask}:
            raise MeasurementError(
                f"mask is {estimate.mask!r}, and it was {self._mask!r} before the recording was "
                "resumed, so unit rates cannot be compared; resume it with the same option, or "
                "start a new recording"
            )
        self._excludes_weight_decay = estimate.excludes_weight_decay
        self._mask = estimate.mask
        self.estimate = estimate
        step = self.cadence.step
        self._plan(step)
        waits_for_rates = any(
            unit_rate == 0 and learning_rate > 0
            for unit_rate, learning_rate in zip(estimate.unit_rates, learning_rates, strict=True)
        )
        self.cadence.next_step = self._regular_step
        if step < self._dense_start_steps or waits_for_rates:
            self.cadence.next_step = min(self._regular_step, max(2 * step, 1))
        self._points.append(
            profile_pb2.ProfilePoint(
                step=step,
                unit_rates=estimate.unit_rates,
                relative_errors=estimate.relative_errors,
                learning_rate=max(learning_rates),
                correlations=(
                    None if estimate.gram is None else correlations(estimate.gram, self._pairs)
                ),
                weight_rms=estimate.weight_rms,
                update_rms=estimate.update_rms,
            )
        )
        stopwatch = self.cadence.stopwatch
        self._listeners.emit(
            Measured(
                step,
                estimate,
                tuple(learning_rates),
                tuple(self.factors),
                tuple(self._groups),
                seconds=stopwatch.seconds_under_way,
                overhead=stopwatch.overhead,
            )
        )

    def _plan(self, step: int) -> None:
        """Find the next regular step after a measured one."""
        if step >= self._regular_step:
            every = self._every if isinstance(self._every, int) else self._every(step)
            self._regular_step = step + max(every, 1)

    def profile(
        self,
        provenance: Provenance,
        *,
        base_learning_rate: float | None = None,
        labels: Mapping[str, str] | None = None,
        docs: str = "",
        policy: policy_pb2.Policy | None = None,
        role_templates: Sequence[str] = (),
    ) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            provenance: Where it comes from.
            base_learning_rate: The learning rate to transfer, absolute. None: the largest scheduled
                one.
            labels: Key-value pairs to filter lists by.
            docs: A written guideline, in Markdown.
            policy: The rules for runs on the profile.
            role_templates: How block indices are read from names, where they are not found
                automatically: beginnings of names with ``*`` for each index.

        Raises:
            MeasurementError: No step was measured.
        """
        if not self._points:
            raise MeasurementError(
                "no step was measured, so there is no profile; train first, and look for a warning "
                "of the logger 'fslr'"
            )
        layout = layout_pb2.Layout()
        layout.CopyFrom(self._layout)
        layout.role_templates.extend(role_templates)
        content = profile_pb2.ProfileContent(
            layout=layout,
            points=self._points,
            correlated_groups=[profile_pb2.GroupPair(first=i, second=j) for i, j in self._pairs],
            base_learning_rate=(
                self._max_learning_rate if base_learning_rate is None else base_learning_rate
            ),
            total_steps=self.cadence.step,
            policy=policy,
            provenance=provenance.message(self._optimizer),
            labels=labels or {},
            docs=docs,
            excludes_weight_decay=bool(self._excludes_weight_decay),
            mask=self._mask or "",
        )
        if any(len(point.correlations) != len(self._pairs) for point in content.points):
            # The recording was resumed with an estimator that has no correlations.
            content.ClearField("correlated_groups")
            for point in content.points:
                point.ClearField("correlations")
        if not all(point.weight_rms and point.update_rms for point in content.points):
            # They were not finite in a step, or the recording began with an earlier version.
            for point in content.points:
                point.ClearField("weight_rms")
                point.ClearField("update_rms")
        return content

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, as plain values; the points so far are part of it."""
        return {
            **header(_KIND, self._groups),
            "cadence": self.cadence.state_dict(),
            "max_learning_rate": self._max_learning_rate,
            "points": [point.SerializeToString() for point in self._points],
            "excludes_weight_decay": self._excludes_weight_decay,
            "mask": self._mask,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state belongs to something else, to a model with different groups, or
                to a different version of this format.
        """
        check_header(state, _KIND, self._groups)
        self.cadence.load_state_dict(state["cadence"])
        self._max_learning_rate = float(state["max_learning_rate"])
        self._points = [profile_pb2.ProfilePoint.FromString(point) for point in state["points"]]
        self._excludes_weight_decay = state["excludes_weight_decay"]
        self._mask = state["mask"]
        self._regular_step = 0
        for point in self._points:
            self._plan(point.step)
