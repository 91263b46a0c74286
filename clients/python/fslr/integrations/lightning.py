"""Lightning: advice, or a recording, by one callback.

Train with advice::

    trainer = Trainer(callbacks=[AdviceCallback(profile="char-gpt@prod")])

Record a profile::

    recorder = RecorderCallback(provenance=fslr.Provenance("char GPT", width=32, ...))
    Trainer(callbacks=[recorder]).fit(module, loader)
    content = recorder.profile()

A callback watches the network inside of the ``LightningModule``, since a ``training_step`` may call
it directly.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fslr.advisor.v1 import profile_pb2
from fslr.errors import MeasurementError
from fslr.integrations.lightning_setup import Setup, check_trainer
from fslr.integrations.log_figures import log_figures
from fslr.integrations.rank_states import load_state_of_rank, states_of_ranks
from fslr.integrations.requirements import required
from fslr.profile_files import save_profile
from fslr.protocols import Advisor
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from fslr.torch.scaling import Scaling
from fslr.training.advised_run import Answers
from fslr.training.budget import DEFAULT_MAX_OVERHEAD
from fslr.training.events import Listener
from fslr.training.recording import Provenance
from fslr.training.run_info import RunInfo

# Both names of the package exist, and their classes differ: the one in use counts.
_IS_OLD_NAME = "lightning.pytorch" not in sys.modules and (
    "pytorch_lightning" in sys.modules or importlib.util.find_spec("lightning") is None
)
with required("pytorch_lightning" if _IS_OLD_NAME else "lightning", "2.4", extra="lightning"):
    if not _IS_OLD_NAME:
        import lightning.pytorch as lightning
    else:
        import pytorch_lightning as lightning  # type: ignore[no-redef]

_log = logging.getLogger("fslr")


class AdviceCallback(lightning.Callback):
    """Lets an advisor set the learning-rate multipliers of a ``Trainer``.

    It attaches when the training begins, and closes the attachment when it ends. The attachment's
    state goes into each checkpoint. The trainer's loggers get the range of the multipliers, the
    total rate and the linearity error.

    Args:
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
        advisor: ``host:port`` of the service, or an advisor in this process.
        net: Name of the network inside of the ``LightningModule``, such as ``"generator"``. None:
            the only part with parameters that are trained, or the module itself if it has several
            and a ``forward``.
        run: Name under which the run is stored, or a :class:`fslr.RunInfo` with more to say about
            it. The trainer's number of steps is filled in.
        observe_only: Whether to measure and report without applying multipliers.
        options: How to measure.
        strict: Whether errors before and at the first measured step are raised.
        scaling: Where multipliers act; see :func:`fslr.torch.attach`.
        answers: How answers are received; see :func:`fslr.torch.attach`.
        max_overhead: Largest time of all measurements per time of training; None: no limit.
        listeners: Called with each event, such as :class:`fslr.Measured`.

    Attributes:
        attachment: The attachment; None before the training begins.
    """

    def __init__(
        self,
        *,
        profile: str,
        advisor: str | Advisor = "127.0.0.1:50051",
        net: str | None = None,
        run: str | RunInfo = "",
        observe_only: bool = False,
        options: MeasuringOptions | None = None,
        strict: bool = True,
        scaling: Scaling = "auto",
        answers: Answers = "background",
        max_overhead: float | None = DEFAULT_MAX_OVERHEAD,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.attachment: Attachment | None = None
        self._net, self._run = net, run
        self._arguments: dict[str, Any] = {
            "profile": profile,
            "advisor": advisor,
            "observe_only": observe_only,
            "options": options,
            "strict": strict,
            "scaling": scaling,
            "answers": answers,
            "max_overhead": max_overhead,
            "listeners": listeners,
        }
        self._saved: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints; callbacks of several nets differ."""
        return str(self._generate_state_key(net=self._net))

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a trainer whose steps cannot be measured."""
        if stage == "fit":
            check_trainer(trainer, pl_module, lightning)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach, and continue where the checkpoint was saved if the training resumes.

        Raises:
            AttachError: The training cannot be attached to.
            ServiceError: The advisor does not answer, or its profile does not suit the network.
        """
        self.close()
        found = Setup.of(trainer, pl_module, self._net)
        saved, self._saved = self._saved, None
        self.attachment = attach(
            found.net,
            found.optimizers,
            run=found.described_run(self._run),
            process_group=found.process_group,
            first_step=found.first_step(saved),
            **self._arguments,
        )
        if saved is not None:
            load_state_of_rank(self.attachment, saved)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add figures to the trainer's log, and report the loss to the advisor when it logs."""
        del batch
        attachment = self.attachment
        if attachment is None or (batch_idx + 1) % trainer.log_every_n_steps:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            attachment.report_loss(float(loss) * trainer.accumulate_grad_batches)
        pl_module.log_dict(log_figures(attachment.estimate, attachment.multipliers))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the attachment."""
        del trainer, pl_module
        self.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the attachment."""
        del trainer, pl_module, exception
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes; all of them call this together."""
        return {} if self.attachment is None else states_of_ranks(self.attachment)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until the training begins.

        Args:
            state_dict: What :meth:`state_dict` returned.
        """
        self._saved = state_dict

    def close(self) -> None:
        """Detach from the network, the optimizers and the advisor; what is known stays readable."""
        if self.attachment is not None:
            self.attachment.close()


class RecorderCallback(lightning.Callback):
    """Records a training of a ``Trainer`` as a profile; the training stays bit-identical.

    Args:
        net: Name of the network inside of the ``LightningModule``; see :class:`AdviceCallback`.
        every: Steps between measurements, >= 1; or a function that returns them for a measured
            step.
        dense_start_steps: While the training is younger than this, it is measured again once its
            number of steps has doubled.
        provenance: Where the profile comes from; a string names the model only.
        save_to: File to save the profile to at the end of the training, by the first process.
        options: How to measure.
        listeners: Called with each event, such as :class:`fslr.Measured`.

    Attributes:
        recorder: The recorder; None before the training begins.
    """

    def __init__(
        self,
        *,
        net: str | None = None,
        every: int | Callable[[int], int] = 25,
        dense_start_steps: int = 0,
        provenance: Provenance | str | None = None,
        save_to: str | os.PathLike[str] | None = None,
        options: MeasuringOptions | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.recorder: Recorder | None = None
        self._net, self._save_to = net, save_to
        self._arguments: dict[str, Any] = {
            "every": every,
            "dense_start_steps": dense_start_steps,
            "provenance": provenance,
            "options": options,
            "listeners": listeners,
        }
        self._saved: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints; callbacks of several nets differ."""
        return str(self._generate_state_key(net=self._net))

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a trainer whose steps cannot be measured."""
        if stage == "fit":
            check_trainer(trainer, pl_module, lightning)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start to record, and continue where the checkpoint was saved if the training resumes.

        Raises:
            AttachError: The training cannot be recorded.
        """
        self.close()
        found = Setup.of(trainer, pl_module, self._net)
        saved, self._saved = self._saved, None
        self.recorder = Recorder(
            found.net,
            found.optimizers,
            process_group=found.process_group,
            first_step=found.first_step(saved),
            **self._arguments,
        )
        if saved is not None:
            load_state_of_rank(self.recorder, saved)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add figures to the trainer's log."""
        del outputs, batch
        if self.recorder is not None and (batch_idx + 1) % trainer.log_every_n_steps == 0:
            pl_module.log_dict(log_figures(self.recorder.estimate))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop to record, and save the profile if there is a file for it."""
        del pl_module
        self.close()
        if self._save_to is None or not trainer.is_global_zero:
            return
        try:
            save_profile(self.profile(), Path(self._save_to))
        except (MeasurementError, OSError) as error:
            _log.warning("the profile was not saved to %s: %s", self._save_to, error)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Stop to record."""
        del trainer, pl_module, exception
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes; all of them call this together."""
        return {} if self.recorder is None else states_of_ranks(self.recorder)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until the training begins.

        Args:
            state_dict: What :meth:`state_dict` returned.
        """
        self._saved = state_dict

    def profile(self, **details: Any) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            **details: Passed on to :meth:`fslr.torch.Recorder.profile`.

        Raises:
            MeasurementError: No step was measured, or the training has not begun.
        """
        if self.recorder is None:
            raise MeasurementError("the training has not begun; call trainer.fit() first")
        return self.recorder.profile(**details)

    def close(self) -> None:
        """Detach from the network and the optimizers; what was recorded stays available."""
        if self.recorder is not None:
            self.recorder.close()
