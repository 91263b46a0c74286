"""Hugging Face ``Trainer`` and TRL's ``SFTTrainer``: advice, or a recording, by one callback.

Train with advice::

    trainer = Trainer(model, args, callbacks=[AdviceCallback(profile="char-gpt@prod")], ...)

Record a profile::

    recorder = RecorderCallback(provenance=fslr.Provenance("GPT-2", dataset="Wikipedia"))
    trainer = Trainer(model, args, callbacks=[recorder], ...)
    trainer.train()
    content = recorder.profile()
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fslr.advisor.v1 import profile_pb2
from fslr.errors import MeasurementError
from fslr.integrations.log_figures import log_figures
from fslr.integrations.requirements import required
from fslr.integrations.trainer_checkpoints import TrainerCheckpoints
from fslr.integrations.trainer_setup import (
    check_arguments,
    described_run,
    measuring,
    process_group,
    provenance_of,
    with_logits,
)
from fslr.profile_files import save_profile
from fslr.protocols import Advisor
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from fslr.torch.scaling import Scaling
from fslr.training.advised_run import Answers
from fslr.training.budget import DEFAULT_MAX_OVERHEAD
from fslr.training.events import Listener
from fslr.training.recording import Provenance
from fslr.training.run_info import RunInfo

with required("transformers", "5.0", extra="transformers"):
    from transformers import TrainerCallback, TrainerState, TrainingArguments

_log = logging.getLogger("fslr")


class AdviceCallback(TrainerCallback):
    """Lets an advisor set the learning-rate multipliers of a ``Trainer``.

    It attaches when the training begins, and closes the attachment when it ends. The attachment's
    state goes into each checkpoint, and a training that resumes from it continues as the whole one
    would. The trainer's log gets the range of the multipliers, the total rate and the linearity
    error.

    Args:
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
        advisor: ``host:port`` of the service, or an advisor in this process.
        run: Name under which the run is stored, or a :class:`fslr.RunInfo` with more to say about
            it. The trainer's number of steps and examples per step are filled in.
        observe_only: Whether to measure and report without applying multipliers.
        options: How to measure. Without an output they measure ``"logits"``, and without a mask the
            outputs with a label.
        ignored_labels: Whether outputs whose label is -100 are left out; see :func:`.label_mask`.
            False, or a mask in ``options``, counts differently.
        strict: Whether errors before and at the first measured step are raised.
        scaling: Where multipliers act; see :func:`fslr.torch.attach`.
        answers: How answers are received; see :func:`fslr.torch.attach`.
        max_overhead: Largest time of all measurements per time of training; None: no limit.
        listeners: Called with each event, such as :class:`fslr.Measured`.
        resume_from: Folder of the checkpoint that a training resumes from, if it is neither in the
            output folder nor named in the arguments.

    Attributes:
        attachment: The attachment; None before the training begins.
    """

    def __init__(
        self,
        *,
        profile: str,
        advisor: str | Advisor = "127.0.0.1:50051",
        run: str | RunInfo = "",
        observe_only: bool = False,
        options: MeasuringOptions | None = None,
        ignored_labels: bool = True,
        strict: bool = True,
        scaling: Scaling = "auto",
        answers: Answers = "background",
        max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
        listeners: Sequence[Listener] = (),
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        self.attachment: Attachment | None = None
        self._profile, self._advisor, self._run = profile, advisor, run
        self._options, self._ignored_labels = options, ignored_labels
        self._passed_on: dict[str, Any] = {
            "observe_only": observe_only,
            "strict": strict,
            "scaling": scaling,
            "answers": answers,
            "max_overhead": max_overhead,
        }
        self._listeners = list(listeners)
        self._checkpoints = TrainerCheckpoints("fslr_attachment", resume_from)
        self._remove_hook: Callable[[], None] = _do_nothing

    def on_init_end(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Refuse a trainer whose steps cannot be measured."""
        check_arguments(args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any
    ) -> None:
        """Attach, and continue where the checkpoint was saved if the training resumes.

        Raises:
            AttachError: The training cannot be attached to.
            ServiceError: The advisor does not answer, or its profile does not suit the model.
        """
        self.close()  # of a training that ended with an exception
        model, optimizer = given["model"], given["optimizer"]
        check_arguments(args, optimizer)
        saved = _saved(self._checkpoints, args, state)
        self.attachment = attach(
            model,
            optimizer,
            profile=self._profile,
            advisor=self._advisor,
            run=described_run(self._run, args, state),
            options=measuring(self._options, model, args, ignored_labels=self._ignored_labels),
            process_group=process_group(model, args),
            first_step=state.global_step,
            listeners=self._listeners,
            **self._passed_on,
        )
        if saved is not None:
            self.attachment.load_state_dict(saved)
        self._remove_hook = with_logits(model)

    def on_log(self, *states: Any, **given: Any) -> None:
        """Report the loss to the advisor, and add figures to the trainer's log."""
        state, logs = states[1], given["logs"]
        if self.attachment is None or "loss" not in logs:
            return  # the metrics of an evaluation, or of the whole training
        self.attachment.report_loss(float(logs["loss"]))
        figures = log_figures(self.attachment.estimate, self.attachment.multipliers)
        _add_figures(figures, state, logs)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Save the attachment's state into the checkpoint."""
        if self.attachment is not None:
            self._checkpoints.save(self.attachment, args, state)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close the attachment."""
        self.close()

    def close(self) -> None:
        """Detach from the model, the optimizer and the advisor; what is known stays readable.

        The end of the training does so, unless it is an exception.
        """
        self._remove_hook()
        if self.attachment is not None:
            self.attachment.close()


class RecorderCallback(TrainerCallback):
    """Records a training of a ``Trainer`` as a profile; the training stays bit-identical.

    Args:
        every: Steps between measurements, >= 1; or a function that returns them for a measured
            step.
        dense_start_steps: While the training is younger than this, it is measured again once its
            number of steps has doubled.
        provenance: Where the profile comes from. Its width, depth and batch size are those of the
            model's configuration and the trainer's arguments, unless it says otherwise.
        save_to: File to save the profile to at the end of the training, by the first process.
        options: How to measure; see :class:`AdviceCallback`.
        ignored_labels: Whether outputs whose label is -100 are left out.
        listeners: Called with each event, such as :class:`fslr.Measured`.
        resume_from: Folder of the checkpoint that a training resumes from, if it is neither in the
            output folder nor named in the arguments.

    Attributes:
        recorder: The recorder; None before the training begins.
    """

    def __init__(
        self,
        *,
        every: int | Callable[[int], int] = 25,
        dense_start_steps: int = 0,
        provenance: Provenance | str | None = None,
        save_to: str | os.PathLike[str] | None = None,
        options: MeasuringOptions | None = None,
        ignored_labels: bool = True,
        listeners: Sequence[Listener] = (),
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        self.recorder: Recorder | None = None
        self._every, self._dense_start_steps = every, dense_start_steps
        self._provenance, self._save_to = provenance, save_to
        self._options, self._ignored_labels = options, ignored_labels
        self._listeners = list(listeners)
        self._checkpoints = TrainerCheckpoints("fslr_recorder", resume_from)
        self._remove_hook: Callable[[], None] = _do_nothing

    def on_init_end(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Refuse a trainer whose steps cannot be measured."""
        check_arguments(args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any
    ) -> None:
        """Start to record, and continue where the checkpoint was saved if the training resumes.

        Raises:
            AttachError: The training cannot be recorded.
        """
        self.close()
        model, optimizer = given["model"], given["optimizer"]
        check_arguments(args, optimizer)
        saved = _saved(self._checkpoints, args, state)
        self.recorder = Recorder(
            model,
            optimizer,
            every=self._every,
            dense_start_steps=self._dense_start_steps,
            provenance=provenance_of(self._provenance, model, args, state),
            options=measuring(self._options, model, args, ignored_labels=self._ignored_labels),
            process_group=process_group(model, args),
            first_step=state.global_step,
            listeners=self._listeners,
        )
        if saved is not None:
            self.recorder.load_state_dict(saved)
        self._remove_hook = with_logits(model)

    def on_log(self, *states: Any, **given: Any) -> None:
        """Add figures to the trainer's log."""
        state, logs = states[1], given["logs"]
        if self.recorder is not None and "loss" in logs:
            _add_figures(log_figures(self.recorder.estimate), state, logs)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Save what was recorded so far into the checkpoint."""
        if self.recorder is not None:
            self._checkpoints.save(self.recorder, args, state)

    def on_train_end(self, *states: Any, **_: Any) -> None:
        """Stop to record, and save the profile if there is a file for it."""
        self.close()
        if self._save_to is None or not states[1].is_world_process_zero:
            return
        try:
            save_profile(self.profile(), Path(self._save_to))
        except (MeasurementError, OSError) as error:
            _log.warning("the profile was not saved to %s: %s", self._save_to, error)

    def profile(self, **details: Any) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            **details: Passed on to :meth:`fslr.torch.Recorder.profile`.

        Raises:
            MeasurementError: No step was measured, or the training has not begun.
        """
        if self.recorder is None:
            raise MeasurementError("the training has not begun; call trainer.train() first")
        return self.recorder.profile(**details)

    def close(self) -> None:
        """Detach from the model and the optimizer; what was recorded stays available."""
        self._remove_hook()
        if self.recorder is not None:
            self.recorder.close()


def _saved(
    checkpoints: TrainerCheckpoints, args: TrainingArguments, state: TrainerState
) -> dict[str, Any] | None:
    """Return the state to continue from; None at the start of a training, and without a state."""
    if state.global_step == 0:
        return None
    saved = checkpoints.load(args, state)
    if saved is None:
        _log.warning(
            "the training resumes at step %d, and no state of this callback was found in its "
            "checkpoint, so measuring starts anew; if the checkpoint has one and is not in %s, "
            "pass resume_from=...",
            state.global_step,
            args.output_dir,
        )
    return saved


def _add_figures(figures: dict[str, float], state: TrainerState, logs: dict[str, Any]) -> None:
    """Add figures to the log line under way, and to the history that the trainer keeps."""
    logs |= figures
    if state.log_history and state.log_history[-1].get("step") == state.global_step:
        state.log_history[-1] |= figures


def _do_nothing() -> None:
    """Remove no hook."""
