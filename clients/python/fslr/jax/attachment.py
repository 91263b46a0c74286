"""Attaches a training to an advisor: measures, asks, and replaces multipliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fslr.advisor.v1 import policy_pb2
from fslr.client.given_advisor import attached_to
from fslr.jax.groups import ModelGroups
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.processes import ranks
from fslr.jax.recipe import NEEDED, settings_line
from fslr.jax.step_loop import SteppedByLoop
from fslr.jax.step_meter import Apply
from fslr.jax.training import TrainingParts, TrainingSpec
from fslr.jax.weight_decay import kept_warning, scaled_hint
from fslr.protocols import Advisor
from fslr.training.advised_run import AdvisedRun, Answers
from fslr.training.attached_training import AdvisedTraining
from fslr.training.budget import DEFAULT_MAX_OVERHEAD
from fslr.training.events import Listener, Warned
from fslr.training.recipe_in_force import RecipeInForce
from fslr.training.run_info import RunInfo, run_info


class Attachment(SteppedByLoop, AdvisedTraining):
    """A training that an advisor advises. Made by :func:`attach`.

    Args:
        spec: What the user says about the training.
        advisor: The advisor to ask.
        profile: The reference.
        info: What the run tells the advisor about itself.
        observe_only: Whether multipliers are not applied.
        recipe: Recipe to follow instead of the policy's; empty: the policy's.
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
        recipe: str = "",
        strict: bool = True,
        answers: Answers = "background",
        max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        parts = TrainingParts(spec)
        self.groups: ModelGroups = parts.groups
        if not observe_only:
            parts.scaler.check_fit()
        opening = info.opening(
            profile,
            parts.layout(),
            optimizer=parts.optimizer,
            base_learning_rate=parts.learning_rates.largest(info.total_steps),
            observe_only=observe_only,
            recipe=recipe,
        )
        in_force = RecipeInForce(
            opening,
            ranks=ranks(),
            listeners=parts.listeners,
            apply=settings_line(parts.opt_state),
            remedy=NEEDED,
        )
        is_wanted = bool(recipe) and not observe_only
        if is_wanted:
            in_force.ask(advisor, strict=strict)
        run = AdvisedRun(
            advisor,
            opening,
            size=parts.meter.size,
            ranks=ranks(),
            listeners=parts.listeners,
            strict=strict,
            answers=answers,
            max_overhead=max_overhead,
        )
        run.check(in_force.priors)
        if run.has_recipe and not (observe_only or is_wanted):
            in_force.ask(advisor, strict=strict)
            run.follow(in_force.priors)
        kept = "" if observe_only else kept_warning(parts.opt_state)
        if kept and run.weight_decay == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT:
            parts.listeners.emit(Warned(0, kept))
            kept = ""
        self._loop = parts.loop(run, kept_hint=kept, scaled_hint=scaled_hint(parts.opt_state))
        in_force.begin(None)
        super().__init__(
            run,
            parts.meter,
            {"meter": parts.meter, "loop": self._loop},
            recipe=in_force,
        )
        self._on_close = on_close

    @property
    def is_due(self) -> bool:
        """Whether the step under way is measured; between steps it is False."""
        return self._loop.is_due

    def report_loss(self, loss: Any) -> None:
        """Send a training loss along with the next measurement, for ``advisor run show``.

        Args:
            loss: The loss: a number, or an array with one, which is read only at a measured step.
                The newest one counts, so you may report it at every step.
        """
        self._run.report_loss(loss)

    def close(self) -> None:
        """End the run. The multipliers in force stay in the optimizer's state."""
        self._loop.close()
        self._run.close()
        if self._on_close is not None:
            self._on_close()


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
    recipe: str = "",
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
        recipe: Recipe to follow instead of the policy's, such as ``completep``: multipliers start
            at its factors on learning rates. Its other factors, and those on initial weights, are
            put in before: see :func:`.recipe_for`.
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

    def attached(to: Advisor, on_close: Callable[[], None] | None) -> Attachment:
        return Attachment(
            spec,
            to,
            profile=profile,
            info=info,
            observe_only=observe_only,
            recipe=recipe,
            strict=strict,
            answers=answers,
            max_overhead=max_overhead,
            on_close=on_close,
        )

    return attached_to(advisor, attached)
