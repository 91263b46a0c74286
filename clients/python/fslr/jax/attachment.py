"""Attaches a training to an advisor: measures, asks, and replaces multipliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from fslr.client.advisor_client import AdvisorClient
from fslr.jax.groups import ModelGroups
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.processes import ranks
from fslr.jax.step_loop import StepLoop, wrapped
from fslr.jax.step_meter import Apply, StepMeter
from fslr.jax.training import TrainingParts, TrainingSpec
from fslr.jax.weight_decay import kept_warning, scaled_hint
from fslr.protocols import Advisor
from fslr.training.advised_run import AdvisedRun, Answers, GroupAdvice
from fslr.training.budget import DEFAULT_MAX_OVERHEAD
from fslr.training.checkpoints import load_all
from fslr.training.estimate import RateEstimate
from fslr.training.events import Listener, Warned
from fslr.training.run_info import RunInfo, run_info


class Attachment:
    """A training that an advisor advises. Made by :func:`attach`.

    Args:
        spec: What the user says about the training.
        advisor: The advisor to ask.
        profile: The reference.
        info: What the run tells the advisor about itself.
        observe_only: Whether multipliers are not applied.
        strict: Whether errors before and at the first measured step are raised.
        answers: How answers to later measurements are received.
        max_overhead: Largest part of the training's time that measuring may take.
        on_close: Called once the attachment is closed.

    Attributes:
        groups: The model's groups, in layout order.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        advisor: Advisor,
        *,
        profile: str,
        info: RunInfo,
        observe_only: bool = False,
        strict: bool = True,
        answers: Answers = "background",
        max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        parts = TrainingParts(spec)
        self.groups: ModelGroups = parts.groups
        self._meter: StepMeter = parts.meter
        if not observe_only:
            parts.scaler.check_fit()
        opening = info.opening(
            profile,
            parts.layout(),
            optimizer=parts.optimizer,
            base_learning_rate=parts.learning_rates.largest(info.total_steps),
            observe_only=observe_only,
        )
        self._run = AdvisedRun(
            advisor,
            opening,
            meter=parts.meter,
            ranks=ranks(),
            listeners=parts.listeners,
            strict=strict,
            answers=answers,
            max_overhead=max_overhead,
        )
        self._run.check()
        kept = "" if observe_only else kept_warning(parts.opt_state)
        if kept and self._run.weight_decay == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT:
            parts.listeners.emit(Warned(0, kept))
            kept = ""
        self._loop: StepLoop = parts.loop(
            self._run, kept_hint=kept, scaled_hint=scaled_hint(parts.opt_state)
        )
        self._loss: Any = None
        self._on_close = on_close

    def before_step(self, model: Any, optimizer: Any) -> Any:
        """Prepare a step: put the newest multipliers in force, and decide whether to measure.

        Call it right before each training step. It does not wait for the device, unless the step is
        measured. Nothing is raised, except at a strict start.

        Args:
            model: The model or its parameters, as they were attached.
            optimizer: The optimizer's state, or an ``nnx.Optimizer``, which is changed in place.

        Returns:
            The optimizer's state to step with.
        """
        return self._loop.before_step(model, optimizer)

    def after_step(self, model: Any, optimizer: Any, batch: Any) -> Any:
        """Measure the step, if it is due. Call it right after each training step.

        The step before may have donated the model and the optimizer's state, but not the batch.
        Nothing is raised, except at a strict start.

        Args:
            model: The model or the parameters that the step returned.
            optimizer: The optimizer's state that the step returned, or an ``nnx.Optimizer``.
            batch: The batch of the step, as ``apply_fn`` takes it.

        Returns:
            The model to continue with. It differs from what was passed after the first step only,
            which is taken with the first answer. A module of Flax nnx is changed in place.
        """
        if self._loop.is_due and self._loss is not None:
            self._run.report_loss(float(self._loss))
        return self._loop.after_step(model, optimizer, batch)

    def wrap(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a training step that calls :meth:`before_step` and :meth:`after_step` by itself.

        Args:
            train_step: A function of (model, optimizer, batch, ...). It returns a tuple that begins
                with the model and the optimizer's state, unless it changes a module of Flax nnx in
                place. The batch is what ``apply_fn`` takes.
        """
        return wrapped(train_step, self)

    @property
    def is_due(self) -> bool:
        """Whether the step under way is measured; between steps it is False."""
        return self._loop.is_due

    @property
    def multipliers(self) -> list[float]:
        """The recommended factors on the scheduled learning rates, in layout order."""
        return self._run.multipliers

    @property
    def answer(self) -> pb.RecommendLRResponse | None:
        """The newest answer, or None; always None on processes that do not talk to the advisor."""
        return self._run.answer

    @property
    def estimate(self) -> RateEstimate | None:
        """The newest measurement, or None before the first."""
        return self._run.estimate

    @property
    def step(self) -> int:
        """Number of optimizer steps so far."""
        return self._run.cadence.step

    @property
    def failures(self) -> int:
        """Number of steps that were due and could not be measured, or that were not scaled."""
        return self._run.cadence.failures

    @property
    def unanswered(self) -> int:
        """Number of measurements without an answer, or with one that cannot be applied."""
        return self._run.unanswered

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured by a slow route, with the reason.

        Empty before the first measurement.
        """
        return self._meter.slow_groups

    def by_name(self) -> dict[str, GroupAdvice]:
        """Return what is known about each group, by its name, in layout order.

        On processes that do not talk to the advisor, outcomes and references are None.
        """
        return self._run.by_name()

    def __repr__(self) -> str:
        """Return the attachment in a few words: profile, step, groups and multipliers."""
        return repr(self._run).replace(type(self._run).__name__, type(self).__name__, 1)

    def report_loss(self, loss: Any) -> None:
        """Send a training loss along with the next measurement, for ``advisor run show``.

        Args:
            loss: The loss: a number, or an array with one, which is read only at a measured step.
                The newest one counts, so you may report it at every step.
        """
        self._loss = loss

    def __enter__(self) -> Self:
        """Return the attachment itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the attachment."""
        self.close()

    def close(self) -> None:
        """End the run. The multipliers in force stay in the optimizer's state."""
        self._loop.close()
        self._run.close()
        if self._on_close is not None:
            self._on_close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs so that a resumed training continues as this one would.

        It holds plain values that JSON can represent. The multipliers in force are part of it, and
        of the optimizer's state as well. An answer that is under way is not.
        """
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called; if it raises, nothing has changed.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state was not saved from an attachment to a model with these groups, by
                this version.
            KeyError: An entry is missing.
        """
        load_all(self._parts(), state)

    def _parts(self) -> dict[str, AdvisedRun | StepMeter | StepLoop]:
        return {"run": self._run, "meter": self._meter, "loop": self._loop}


def attach(
    apply_fn: Apply,
    model: Any,
    optimizer: Any,
    *,
    profile: str,
    advisor: str | Advisor = "127.0.0.1:50051",
    learning_rate: Any = None,
    run: str | RunInfo = "",
    total_steps: int = 0,
    observe_only: bool = False,
    options: MeasuringOptions | None = None,
    strict: bool = True,
    optimizer_name: str = "",
    stacked: Mapping[str, int] | None = None,
    accumulate_steps: int | None = None,
    answers: Answers = "background",
    max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
    listeners: Sequence[Listener] = (),
) -> Attachment:
    """Let an advisor set the learning-rate multipliers of a training.

    The optimizer's chain ends with :func:`scale_by_advice`. The loop calls ``before_step`` and
    ``after_step`` around each training step, or uses a step that ``wrap`` returns::

        attachment = fslr.jax.attach(apply_fn, params, opt_state, profile="char-gpt@prod",
                                     learning_rate=schedule)
        train_step = attachment.wrap(train_step)

    Steps are measured where the advisor wants them measured, outside of compiled steps, and
    multipliers are replaced in the optimizer's state without compiling anything again. The first
    step is taken with the first answer. Later answers come in the background, and no step waits for
    them unless ``answers`` is ``"wait"``.

    If several processes train the model, all of them call this, and the first one talks to the
    advisor.

    Args:
        apply_fn: A pure function of (model, batch) that returns the outputs, such as logits, with
            a dimension that counts the examples.
        model: The parameters (a pytree of floating arrays), an Equinox module, or a module of Flax
            nnx. ``apply_fn`` gets the same.
        optimizer: The state that ``tx.init(params)`` returned, or an ``nnx.Optimizer``.
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
        advisor: ``host:port`` of the service, or an advisor in this process.
        learning_rate: The learning rate or the schedule that the optimizer was built with, or a
            pytree of them whose structure is a prefix of the parameters'. None: what
            ``optax.inject_hyperparams`` keeps in the state.
        run: Name under which the run is stored, or a :class:`fslr.RunInfo` with more to say about
            it. Empty: the run is not stored.
        total_steps: Planned number of optimizer steps; needed by policies that align by progress.
        observe_only: Whether to measure and report without applying multipliers. The training is
            then bit-identical to one without an attachment.
        options: How to measure.
        strict: Whether errors before and at the first measured step are raised. Otherwise they are
            logged, and the multipliers stay 1 until an answer comes. Later errors are never raised.
        optimizer_name: The optimizer's name. Empty: found in its state.
        stacked: The axis that counts layers, by the name of a leaf or of a subtree; the same as in
            :func:`scale_by_advice`. Each layer is a group, and has its number in its name.
        accumulate_steps: Number of calls of the training step for each step of the optimizer, as in
            ``optax.MultiSteps``. The last batch is measured.
        answers: ``"background"``: an answer takes effect at the first step that begins after it
            arrived. ``"wait"``: the measured step waits for its answer, which takes effect at the
            next step, so that equal trainings are bit-identical.
        max_overhead: Largest time of all measurements per time of training, above 0, without the
            time that compiling takes. None: no limit. It has no effect with ``answers="wait"``.
        listeners: Called with each event, such as :class:`fslr.Measured`.

    Returns:
        The attachment. Close it when training ends, or use it as a context manager.

    Raises:
        AttachError: The parameters, the optimizer, the learning rate or ``stacked`` do not fit each
            other; the chain has no ``scale_by_advice``; or ``total_steps`` is given twice.
        MeasurementError: An option is out of its range.
        ServiceError: The advisor does not answer, the profile does not exist, or the layout does
            not map.
    """
    spec = TrainingSpec(
        apply_fn,
        model,
        optimizer,
        learning_rate=learning_rate,
        optimizer_name=optimizer_name,
        stacked=stacked,
        accumulate_steps=accumulate_steps,
        options=options,
        listeners=listeners,
    )
    info = run_info(run, total_steps)

    def attached(to: Advisor, on_close: Callable[[], None] | None = None) -> Attachment:
        return Attachment(
            spec,
            to,
            profile=profile,
            info=info,
            observe_only=observe_only,
            strict=strict,
            answers=answers,
            max_overhead=max_overhead,
            on_close=on_close,
        )

    if not isinstance(advisor, str):
        return attached(advisor)
    client = AdvisorClient(advisor)
    try:
        return attached(client, client.close)
    except BaseException:
        client.close()
        raise
