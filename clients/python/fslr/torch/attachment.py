"""Attaches a training job to an advisor: measures, asks, and scales the learning rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, SupportsFloat

import torch
from torch import Tensor, nn

from fslr.client.given_advisor import attached_to
from fslr.protocols import Advisor
from fslr.torch.calls.training_watch import TrainingWatch
from fslr.torch.distributed import Group, ranks_of, uneven_steps
from fslr.torch.initialization import refuse_initialization, scale_weights
from fslr.torch.measuring_options import MeasuringOptions
from fslr.torch.model.groups import ModelGroups, check_model
from fslr.torch.optimizers import Optimizers, checked_optimizers, largest_learning_rate, name_of
from fslr.torch.step_meter import StepMeter
from fslr.torch.steps.scaling import Choice, Scaling, choose, on_updates
from fslr.torch.steps.step_check import StepCheck
from fslr.torch.steps.step_hooks import StepHooks, refuse_attached
from fslr.torch.steps.step_scaler import StepScaler, splitting_hint
from fslr.torch.steps.weight_decay import WeightDecay, exclusion_warning, kept_hint, scaled_hint
from fslr.training.advised_run import AdvisedRun, Answers
from fslr.training.argument_checks import checked_options
from fslr.training.attached_training import AdvisedTraining
from fslr.training.budget import DEFAULT_MAX_OVERHEAD
from fslr.training.events import Listener, Listeners, Warned
from fslr.training.recipe_in_force import RecipeInForce
from fslr.training.rounds import Rounds
from fslr.training.run_info import RunInfo, run_info
from fslr.training.step_cycle import StepCycle


class Attachment(AdvisedTraining):
    """A training job that an advisor advises. Made by :func:`attach`.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer, or several.
        advisor: The advisor to ask.
        profile: The reference.
        info: What the run tells the advisor about itself.
        observe_only: Whether multipliers are not applied.
        options: How to measure.
        strict: Whether errors before and at the first measured step are raised.
        scaling: Where multipliers act.
        process_group: The processes that train the model together.
        answers: How answers to later measurements are received.
        max_overhead: Largest part of the training's time that measuring may take.
        first_step: Number of steps that the training has made before.
        recipe: Recipe to follow instead of the policy's; empty: the policy's.
        initialize: Whether to scale the initial weights as the recipe says.
        residual_outputs: Patterns of the tensors whose output is added to a residual stream; empty:
            found in the forward pass of blocks, or by their names.
        listeners: Called with each event.
        on_close: Called once the attachment is closed.

    Attributes:
        groups: The model's groups, in layout order.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        advisor: Advisor,
        *,
        profile: str,
        info: RunInfo,
        observe_only: bool = False,
        options: MeasuringOptions | None = None,
        strict: bool = True,
        scaling: Scaling = "auto",
        process_group: Group = None,
        answers: Answers = "background",
        max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
        first_step: int = 0,
        recipe: str = "",
        initialize: bool = False,
        residual_outputs: Sequence[str] = (),
        listeners: Sequence[Listener] = (),
        on_close: Callable[[], None] | None = None,
    ) -> None:
        check_model(model)
        optimizers = checked_optimizers(optimizer)
        self.groups = ModelGroups(model, optimizers)
        if not observe_only:
            refuse_attached(optimizers)
        choices = [] if observe_only else [choose(one, scaling) for one in optimizers]
        ranks = ranks_of(model, process_group)
        receivers = Listeners.with_log(listeners)
        if initialize:
            refuse_initialization(
                *(model, self.groups, optimizers, choices, ranks),
                observe_only=observe_only,
                first_step=first_step,
            )
        self._scaler = _scaler(optimizers, choices, self.groups, receivers)
        options = checked_options(options, MeasuringOptions, package="fslr.torch")
        self._meter = StepMeter(model, self.groups, options, ranks, receivers)
        decays = [WeightDecay(inner) for inner in self._scaler.inner]
        if options.exclude_weight_decay and (warning := exclusion_warning(decays)):
            receivers.emit(Warned(0, warning))
        try:
            opening = info.opening(
                profile,
                self.groups.layout(residual_outputs, is_resumed=bool(first_step)),
                optimizer=name_of(optimizers),
                base_learning_rate=largest_learning_rate(optimizers),
                observe_only=observe_only,
                recipe=recipe,
            )
            in_force = RecipeInForce(
                opening, ranks=ranks, listeners=receivers, apply=self._scaler.set_settings
            )
            is_wanted = not observe_only and bool(recipe or initialize)
            initial = (
                in_force.ask(advisor, strict=strict, initialize=initialize) if is_wanted else None
            )
            run = AdvisedRun(
                advisor,
                opening,
                size=self._meter.size,
                ranks=ranks,
                listeners=receivers,
                strict=strict,
                answers=answers,
                max_overhead=max_overhead,
            )
            run.cadence.start_at(first_step)
            run.check(in_force.priors)
            if run.has_recipe and not (observe_only or is_wanted):
                in_force.ask(advisor, strict=strict)
                run.follow(in_force.priors)
        except BaseException:
            self._meter.close()
            raise
        rounds = Rounds(len(self._scaler.inner))
        super().__init__(
            run,
            self._meter,
            {"meter": self._meter, "scaler": self._scaler, "rounds": rounds},
            recipe=in_force,
        )
        cycle = StepCycle(
            run,
            self._meter,
            self._scaler,
            listeners=receivers,
            rounds=rounds,
            hint=splitting_hint(self._scaler.inner, len(self.groups)),
            kept_decay_hint=kept_hint(decays),
            # A recipe says itself what becomes of weight decay.
            scaled_decay_hint="" if in_force.recipe else scaled_hint(decays),
            uneven_steps=partial(uneven_steps, model) if ranks.count > 1 else str,
        )
        check = StepCheck(
            [one for one, choice in zip(optimizers, choices, strict=False) if choice.needs_checks],
            self._scaler,
            receivers,
            lambda: run.cadence.step,
            run.leave_unscaled,
        )
        self._scaler.on_begin = check.multipliers_changed
        self._watch = TrainingWatch(model, self.groups, self._scaler.inner, receivers)
        self._hooks = StepHooks(
            optimizers,
            cycle,
            self._scaler,
            self._meter.calls,
            watch=self._watch,
            check=check,
            timer=run.cadence.stopwatch,
        )
        self._meter.calls.on_call = self._hooks.model_called
        self._meter.calls.releases.action = self._hooks.model_called_compiled
        self._meter.calls.timer = run.cadence.stopwatch
        if not observe_only:
            self._hooks.owned_by(self, self._meter.close)
        self._on_close = on_close
        if initial is not None:  # last, so that nothing is changed if attaching fails
            scale_weights(self.groups, initial.factors)
        in_force.begin(initial)

    def report_loss(self, loss: SupportsFloat) -> None:
        """Send a training loss along with the next measurement, for ``advisor run show``.

        Args:
            loss: The loss, in any unit, as a number or a tensor. It goes with one measurement, and
                only if it is finite; one that cannot be read is a warning. The newest one counts,
                so you may report it at every step: a tensor is read at measured steps only.
        """
        # A copy has no graph, and keeps its value if the training writes to the tensor.
        self._run.report_loss(loss.detach().clone() if isinstance(loss, Tensor) else loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; see :meth:`.AdvisedTraining.state_dict`.

        Within a step, as in a closure, it is the state with which the step began.
        """
        self._hooks.restore()
        return super().state_dict()

    def close(self) -> None:
        """Detach from the model, the optimizer and the advisor.

        Training continues at the scheduled learning rates and with the optimizer's own settings,
        as it would without an attachment. Weights that were scaled stay as they are.
        """
        self._run.cadence.close()
        self._watch.closed(was_called=self._meter.calls.was_called)
        self._hooks.close()
        self._meter.close()
        self._run.close()
        if self._on_close is not None:
            self._on_close()


def _scaler(
    optimizers: Sequence[torch.optim.Optimizer],
    choices: Sequence[Choice],
    groups: ModelGroups,
    receivers: Listeners,
) -> StepScaler:
    """Return what scales the steps of optimizers, each in the way that was chosen for it."""
    scaler = StepScaler(optimizers, [group.parameter for group in groups])
    for one, choice in zip(optimizers, choices, strict=False):
        if choice.by_update:
            scaler.scale_updates_of(one)
        if not choice.is_correctable:
            scaler.do_not_correct(one)
        if choice.reason:
            receivers.emit(Warned(0, on_updates(one, choice.reason), is_hint=True))
    return scaler


def attach(
    model: nn.Module,
    optimizer: Optimizers,
    *,
    profile: str,
    advisor: str | Advisor = "127.0.0.1:50051",
    run: str | RunInfo = "",
    total_steps: int = 0,
    observe_only: bool = False,
    options: MeasuringOptions | None = None,
    strict: bool = True,
    scaling: Scaling = "auto",
    process_group: Group = None,
    answers: Answers = "background",
    max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
    first_step: int = 0,
    recipe: str = "",
    initialize: bool = False,
    residual_outputs: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Attachment:
    """Let an advisor set the learning-rate multipliers of a training job.

    From now on the optimizer's steps are measured where the advisor wants them measured, and each
    tensor steps with ``scheduled learning rate * multiplier``. The very first step is taken with
    the first answer. Later answers come in the background, and no step waits for them unless
    ``answers`` is ``"wait"``. The training loop does not change: between steps the optimizer looks
    as before, to schedulers and to checkpoints.

    If several ranks train the model, all of them call this. Each rank measures its own examples,
    the first rank talks to the advisor, and all ranks apply its answer in the same step.

    Args:
        model: The model that the training loop calls.
        optimizer: Its optimizer, or a list of several that train it together. One step of the
            training ends when the last of them has stepped.
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
        advisor: ``host:port`` of the service, or an advisor in this process.
        run: Name under which the run is stored, or a :class:`fslr.RunInfo` with more to say about
            it. Empty: the run is not stored.
        total_steps: Planned number of optimizer steps; needed by policies that align by progress.
        observe_only: Whether to measure and report without applying multipliers. The training is
            then bit-identical to one without an attachment.
        options: How to measure.
        strict: Whether errors before and at the first measured step are raised. Otherwise they are
            logged, and the multipliers stay 1 until an answer comes. Later errors are never raised.
        scaling: Where multipliers act. ``"learning_rates"``: the step function sees the
            optimizer's groups split, with scaled learning rates. ``"update"``: the update is scaled
            after the step, for optimizers that are slow with many groups or whose steps are not
            proportional to learning rates. It costs a copy of the weights. ``"auto"``: on the
            learning rates where that is known to be right, or turns out so when a small copy of
            the optimizer is tried out; else on the update.
        process_group: The processes that train the model together: a process group; ``"alone"``;
            None: those of the model's wrapper (DistributedDataParallel, FSDP2).
        answers: ``"background"``: an answer takes effect at the first step that begins after it
            arrived, which depends on timing. ``"wait"``: the measured step waits for its answer,
            which takes effect at the next step. Two trainings that are bit-identical without
            advice are so with it, as long as no request fails.
        max_overhead: Largest time of all measurements, and of the hooks in each step, per time of
            training, above 0; by default 1%. Where a measurement costs more, fewer examples are
            measured (at least 8), and less often as far as the policy allows. The first measurement
            is not limited; what it costs is saved later. None: no limit. It has no effect with
            ``answers="wait"``.
        first_step: Number of steps that the training has made before, >= 0, if it is resumed
            without a state to load, such as a training that gets advice from now on.
        recipe: Recipe to follow instead of the policy's, such as ``completep``, or the resource
            name of a stored one. From the first step on, learning rates start at its factors, and
            the optimizer steps with ``eps`` and ``weight_decay`` times its factors, which for
            ``betas`` are on ``1 - beta``. Its groups keep the user's own settings. Empty: the
            policy's recipe, if it has one.
        initialize: Whether to scale the initial weights once, before the first step, to the size
            that the recipe gives them. Tensors are scaled in place, tied ones once, on all ranks
            alike. A resumed training does not scale again: the checkpoint of the attachment says
            that it was done.
        residual_outputs: Shell patterns of the names of all tensors whose output is added to a
            residual stream, such as ``["blocks.*.attn.proj.*", "blocks.*.mlp.2.*"]``; recipes for
            depth have rules of their own for them. Empty: found in the forward pass of blocks,
            or by their names.
        listeners: Called with each event, such as :class:`fslr.Measured`.

    Returns:
        The attachment. Close it when training ends, or use it as a context manager.

    Raises:
        AttachError: An optimizer does not fit the model, is attached already, or has no learning
            rate; several processes train the model and nothing says how; ``total_steps`` is given
            twice; ``scaling``, ``answers``, ``max_overhead`` or ``first_step`` is out of its
            range; the advisor knows no recipes; or ``initialize`` is set and the weights are not
            initial ones, the run only observes, or it follows no recipe; a pattern in
            ``residual_outputs`` matches no tensor; or an argument has a different type. Nothing
            has changed then.
        MeasurementError: An option is out of its range.
        ServiceError: The advisor does not answer, the profile does not exist, or the layout does
            not map.
    """
    info = run_info(run, total_steps)

    def attached(to: Advisor, on_close: Callable[[], None] | None) -> Attachment:
        return Attachment(
            model,
            optimizer,
            to,
            profile=profile,
            info=info,
            observe_only=observe_only,
            options=options,
            strict=strict,
            scaling=scaling,
            process_group=process_group,
            answers=answers,
            max_overhead=max_overhead,
            first_step=first_step,
            recipe=recipe,
            initialize=initialize,
            residual_outputs=residual_outputs,
            listeners=listeners,
            on_close=on_close,
        )

    return attached_to(advisor, attached)
