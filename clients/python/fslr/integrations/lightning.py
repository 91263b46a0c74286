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
import os
import sys
from abc import abstractmethod
from typing import Any, Unpack

from torch import Tensor

from fslr.integrations.callbacks import (
    AdviceOptions,
    AttachmentHolder,
    Holder,
    RecorderHolder,
    RecordingOptions,
)
from fslr.integrations.lightning_setup import Setup, check_trainer
from fslr.integrations.rank_states import load_state_of_rank, states_of_ranks
from fslr.integrations.requirements import required

# Both names of the package exist, and their classes differ: the one in use counts.
_IS_OLD_NAME = "lightning.pytorch" not in sys.modules and (
    "pytorch_lightning" in sys.modules or importlib.util.find_spec("lightning") is None
)
with required("pytorch_lightning" if _IS_OLD_NAME else "lightning", "2.4", extra="lightning"):
    if not _IS_OLD_NAME:
        import lightning.pytorch as lightning
    else:
        import pytorch_lightning as lightning  # type: ignore[no-redef]


class _TrainingCallback(Holder, lightning.Callback):
    """Holds an attachment or a recorder during ``trainer.fit()``, and its state in checkpoints."""

    _net: str | None = None
    _saved: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints; callbacks of several nets differ."""
        return str(self._generate_state_key(net=self._net))

    @abstractmethod
    def _described(self, found: Setup) -> dict[str, Any]:
        """Return options with what the trainer knows."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a trainer whose steps cannot be measured."""
        if stage == "fit":
            check_trainer(trainer, pl_module, lightning)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, and continue where the checkpoint was saved if the training resumes.

        Raises:
            AttachError: The training cannot be attached to or recorded.
            ServiceError: The advisor does not answer, or its profile does not suit the network.
        """
        self.close()
        found = Setup.of(trainer, pl_module, self._net)
        saved, self._saved = self._saved, None
        held = self._begin(
            found.net,
            found.optimizers,
            process_group=found.process_group,
            first_step=found.first_step(saved),
            **self._described(found),
        )
        if saved is not None:
            load_state_of_rank(held, saved)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add figures to the trainer's log, and report the loss to the advisor when it logs."""
        del batch
        if (batch_idx + 1) % trainer.log_every_n_steps:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._report_loss(float(loss) * trainer.accumulate_grad_batches)
        pl_module.log_dict(self._figures())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the metrics of a validation to the advisor."""
        del pl_module
        if not trainer.sanity_checking:
            self._report_metrics(trainer.callback_metrics)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close what is held."""
        del trainer, pl_module
        self.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close what is held."""
        del trainer, pl_module, exception
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes; all of them call this together."""
        return {} if self._held is None else states_of_ranks(self._held)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until the training begins.

        Args:
            state_dict: What :meth:`state_dict` returned.
        """
        self._saved = state_dict


class AdviceCallback(AttachmentHolder, _TrainingCallback):
    """Lets an advisor set the learning-rate multipliers of a ``Trainer``.

    It attaches when the training begins, and closes the attachment when it ends. The attachment's
    state goes into each checkpoint. The trainer's loggers get the range of the multipliers, the
    total rate and the linearity error.

    Args:
        net: Name of the network inside of the ``LightningModule``, such as ``"generator"``. None:
            the only part with parameters that are trained, or the module itself if it has several
            and a ``forward``.
        **options: ``profile``, ``advisor`` and more: see :class:`.AdviceOptions`. The trainer's
            number of steps is filled in.

    Attributes:
        attachment: The attachment; None before the training begins.

    Raises:
        TypeError: There is no such option, or no ``profile``.
    """

    def __init__(self, *, net: str | None = None, **options: Unpack[AdviceOptions]) -> None:
        super().__init__(**options)
        self._net = net

    def _described(self, found: Setup) -> dict[str, Any]:
        return {"run": found.described_run(self._options.get("run", ""))}


class RecorderCallback(RecorderHolder, _TrainingCallback):
    """Records a training of a ``Trainer`` as a profile; the training stays bit-identical.

    Args:
        net: Name of the network inside of the ``LightningModule``; see :class:`AdviceCallback`.
        save_to: File to save the profile to at the end of the training, by the first process.
        **options: ``every``, ``provenance`` and more: see :class:`.RecordingOptions`.

    Attributes:
        recorder: The recorder; None before the training begins.

    Raises:
        TypeError: There is no such option.
    """

    def __init__(
        self,
        *,
        net: str | None = None,
        save_to: str | os.PathLike[str] | None = None,
        **options: Unpack[RecordingOptions],
    ) -> None:
        super().__init__(save_to=save_to, **options)
        self._net = net

    def _described(self, found: Setup) -> dict[str, Any]:
        del found
        return {}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop to record, and save the profile if there is a file for it."""
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero:
            self._save_profile()
