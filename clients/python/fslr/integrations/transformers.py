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
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from torch import nn

from fslr.integrations.callbacks import (
    AdviceOptions,
    AttachmentHolder,
    Holder,
    RecorderHolder,
    RecordingOptions,
)
from fslr.integrations.requirements import required
from fslr.integrations.trainer_checkpoints import TrainerCheckpoints
from fslr.integrations.trainer_logs import tracker_figures
from fslr.integrations.trainer_setup import (
    check_arguments,
    described_run,
    measuring,
    process_group,
    provenance_of,
    with_logits,
)

with required("transformers", "5.0", extra="transformers"):
    from transformers import TrainerCallback, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from transformers import Trainer

_log = logging.getLogger("fslr")


class _TrainingCallback(Holder, TrainerCallback):
    """Holds an attachment or a recorder during ``trainer.train()``, and saves its state."""

    _options: Mapping[str, Any]
    _checkpoints: TrainerCheckpoints
    _ignored_labels: bool
    _remove_hook: Callable[[], None]

    def _hold(
        self, state_file: str, *, ignored_labels: bool, resume_from: str | os.PathLike[str] | None
    ) -> None:
        """Set what both callbacks have.

        Args:
            state_file: Name of the file in checkpoints, without its suffix.
            ignored_labels: Whether outputs whose label is -100 are left out.
            resume_from: Folder of the checkpoint that a training resumes from.
        """
        self._checkpoints = TrainerCheckpoints(state_file, resume_from)
        self._ignored_labels = ignored_labels
        self._remove_hook = _do_nothing

    @abstractmethod
    def _described(
        self, model: nn.Module, args: TrainingArguments, state: TrainerState
    ) -> dict[str, Any]:
        """Return options with what the model and the trainer know."""

    def on_init_end(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Refuse a trainer whose steps cannot be measured."""
        check_arguments(args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any
    ) -> None:
        """Begin, and continue where the checkpoint was saved if the training resumes.

        Raises:
            AttachError: The training cannot be attached to or recorded.
            ServiceError: The advisor does not answer, or its profile does not suit the model.
        """
        self.close()  # of a training that ended with an exception
        model, optimizer = given["model"], given["optimizer"]
        check_arguments(args, optimizer)
        saved = _saved(self._checkpoints, args, state)
        options = self._options.get("options")
        held = self._begin(
            model,
            optimizer,
            options=measuring(options, model, args, ignored_labels=self._ignored_labels),
            process_group=process_group(model, args),
            first_step=state.global_step,
            **self._described(model, args, state),
        )
        if saved is not None:
            held.load_state_dict(saved)
        self._remove_hook = with_logits(model)

    def on_log(self, *states: Any, **given: Any) -> None:
        """Report the loss to the advisor, and add figures to the trainer's log."""
        state, logs = states[1], given["logs"]
        if "loss" not in logs:
            return  # the metrics of an evaluation, or of the whole training
        self._report_loss(float(logs["loss"]))
        _add_figures(self._figures(), state, logs)

    def on_evaluate(self, *_: Any, metrics: Mapping[str, Any] | None = None, **__: Any) -> None:
        """Report the metrics of an evaluation to the advisor."""
        self._report_metrics(metrics or {})

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Save the state of what is held into the checkpoint."""
        if self._held is not None:
            self._checkpoints.save(self._held, args, state)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close what is held."""
        self.close()

    def log_to_trackers(self, trainer: Trainer, *, groups: Sequence[str] = ("*",)) -> None:
        """Let the trackers of ``report_to`` have rates, shares, multipliers and the rest.

        Call it before ``trainer.train()``. The figures of a measurement go into the next log line
        with a loss. Lines that are printed, and the trainer's history, stay short.

        Args:
            trainer: The trainer that this callback belongs to.
            groups: Shell patterns of the groups whose own numbers are logged, such as
                ``("h.0.*",)``; ``()``: only what concerns all groups together.

        Raises:
            AttachError: The callback is not one of the trainer's.
        """
        self._listeners.append(tracker_figures(trainer, self, groups).collect)

    def close(self) -> None:
        """Detach from the model and the optimizer; what is known stays readable.

        The end of the training does so, unless it is an exception.
        """
        self._remove_hook()
        super().close()


class AdviceCallback(AttachmentHolder, _TrainingCallback):
    """Lets an advisor set the learning-rate multipliers of a ``Trainer``.

    It attaches when the training begins, and closes the attachment when it ends. The attachment's
    state goes into each checkpoint, and a training that resumes from it continues as the whole one
    would. The trainer's log gets the range of the multipliers, the total rate and the linearity
    error.

    Args:
        ignored_labels: Whether outputs whose label is -100 are left out; see :func:`.label_mask`.
            False, or a mask in ``options``, counts differently.
        resume_from: Folder of the checkpoint that a training resumes from, if it is neither in the
            output folder nor named in the arguments.
        **options: ``profile``, ``advisor`` and more: see :class:`.AdviceOptions`. The trainer's
            number of steps and examples per step are filled in. Without an output, ``"logits"`` are
            measured, and without a mask the outputs with a label.

    Attributes:
        attachment: The attachment; None before the training begins.

    Raises:
        TypeError: There is no such option, or no ``profile``.
    """

    def __init__(
        self,
        *,
        ignored_labels: bool = True,
        resume_from: str | os.PathLike[str] | None = None,
        **options: Unpack[AdviceOptions],
    ) -> None:
        super().__init__(**options)
        self._hold("fslr_attachment", ignored_labels=ignored_labels, resume_from=resume_from)

    def _described(
        self, model: nn.Module, args: TrainingArguments, state: TrainerState
    ) -> dict[str, Any]:
        del model
        return {"run": described_run(self._options.get("run", ""), args, state)}


class RecorderCallback(RecorderHolder, _TrainingCallback):
    """Records a training of a ``Trainer`` as a profile; the training stays bit-identical.

    Args:
        save_to: File to save the profile to at the end of the training, by the first process.
        ignored_labels: Whether outputs whose label is -100 are left out.
        resume_from: Folder of the checkpoint that a training resumes from, if it is neither in the
            output folder nor named in the arguments.
        **options: ``every``, ``provenance`` and more: see :class:`.RecordingOptions`. Width, depth
            and batch size of the provenance are those of the model's configuration and the
            trainer's arguments, unless it says otherwise. See :class:`AdviceCallback` for
            ``options``.

    Attributes:
        recorder: The recorder; None before the training begins.

    Raises:
        TypeError: There is no such option.
    """

    _starting_call = "trainer.train()"

    def __init__(
        self,
        *,
        save_to: str | os.PathLike[str] | None = None,
        ignored_labels: bool = True,
        resume_from: str | os.PathLike[str] | None = None,
        **options: Unpack[RecordingOptions],
    ) -> None:
        super().__init__(save_to=save_to, **options)
        self._hold("fslr_recorder", ignored_labels=ignored_labels, resume_from=resume_from)

    def _described(
        self, model: nn.Module, args: TrainingArguments, state: TrainerState
    ) -> dict[str, Any]:
        given = self._options.get("provenance")
        return {"provenance": provenance_of(given, model, args, state)}

    def on_train_end(self, *states: Any, **given: Any) -> None:
        """Stop to record, and save the profile if there is a file for it."""
        super().on_train_end(*states, **given)
        if states[1].is_world_process_zero:
            self._save_profile()


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
