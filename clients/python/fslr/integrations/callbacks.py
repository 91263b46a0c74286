"""What the callbacks of trainers have in common: their options, and what they hold.

A callback attaches or records when its training begins, and closes what it holds when it ends. How
it finds the model, and where checkpoints are, is the trainer's.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

from fslr.advisor.v1 import profile_pb2
from fslr.errors import MeasurementError
from fslr.integrations.log_figures import log_figures
from fslr.profile_files import save_profile
from fslr.protocols import Advisor
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from fslr.torch.optimizers import Optimizers
from fslr.torch.steps.scaling import Scaling
from fslr.training.advised_run import Answers
from fslr.training.events import Listener
from fslr.training.recording import Provenance
from fslr.training.run_info import RunInfo

_log = logging.getLogger("fslr")


class _Required(TypedDict):
    profile: str


class AdviceOptions(_Required, total=False):
    """The options of an ``AdviceCallback``; the defaults are those of :func:`fslr.torch.attach`.

    Attributes:
        profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``. Required.
        advisor: ``host:port`` of the service, or an advisor in this process.
        run: Name under which the run is stored, or a :class:`fslr.RunInfo` with more to say about
            it. What the trainer knows is filled in, such as its number of steps.
        observe_only: Whether to measure and report without applying multipliers.
        options: How to measure.
        strict: Whether errors before and at the first measured step are raised.
        scaling: Where multipliers act.
        answers: How answers are received.
        max_overhead: Largest time of all measurements per time of training; None: no limit.
        recipe: Recipe to follow instead of the policy's.
        initialize: Whether to scale the initial weights as the recipe says. A training that is
            resumed from a checkpoint is not initialized.
        residual_outputs: Patterns of the tensors whose output is added to a residual stream.
        listeners: Called with each event, such as :class:`fslr.Measured`.
    """

    advisor: str | Advisor
    run: str | RunInfo
    observe_only: bool
    options: MeasuringOptions | None
    strict: bool
    scaling: Scaling
    answers: Answers
    max_overhead: float | None
    recipe: str
    initialize: bool
    residual_outputs: Sequence[str]
    listeners: Sequence[Listener]


class RecordingOptions(TypedDict, total=False):
    """The options of a ``RecorderCallback``; the defaults are those of :class:`.Recorder`.

    Attributes:
        every: Steps between measurements, >= 1; or a function that returns them for a measured
            step.
        dense_start_steps: While the training is younger than this, it is measured again once its
            number of steps has doubled.
        provenance: Where the profile comes from; a string names the model only.
        options: How to measure.
        listeners: Called with each event, such as :class:`fslr.Measured`.
    """

    every: int | Callable[[int], int]
    dense_start_steps: int
    provenance: Provenance | str | None
    options: MeasuringOptions | None
    listeners: Sequence[Listener]


class Holder(ABC):
    """Holds an attachment or a recorder from the start of a training to its end."""

    _listeners: list[Listener]

    @property
    @abstractmethod
    def _held(self) -> Attachment | Recorder | None:
        """What is held; None before the training begins."""

    @abstractmethod
    def _begin(
        self, model: nn.Module, optimizers: Optimizers, **found: Any
    ) -> Attachment | Recorder:
        """Attach or start to record; what the trainer knows comes before the options."""

    @abstractmethod
    def _figures(self) -> dict[str, float]:
        """Return figures for the trainer's log; none before the training begins."""

    @abstractmethod
    def _report_loss(self, loss: float) -> None:
        """Report a loss to the advisor, if there is one."""

    @abstractmethod
    def _report_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Report the metrics of an evaluation to the advisor, if it stores them."""

    def close(self) -> None:
        """Detach from the model and the optimizers; what is known stays readable."""
        if self._held is not None:
            self._held.close()


class AttachmentHolder(Holder):
    """Holds an attachment.

    Args:
        **options: What :func:`fslr.torch.attach` gets besides what the trainer knows.

    Attributes:
        attachment: The attachment; None before the training begins.

    Raises:
        TypeError: There is no such option, or no profile.
    """

    def __init__(self, **options: Unpack[AdviceOptions]) -> None:
        self.attachment: Attachment | None = None
        self._options: Mapping[str, Any] = _checked(options, AdviceOptions, type(self).__name__)
        self._listeners = list(options.get("listeners", ()))

    @property
    def _held(self) -> Attachment | None:
        return self.attachment

    def _begin(self, model: nn.Module, optimizers: Optimizers, **found: Any) -> Attachment:
        given = {**self._options, "listeners": self._listeners, **found}
        if given.get("first_step", 0):
            given["initialize"] = False  # the weights are those of the checkpoint
        self.attachment = attach(model, optimizers, **given)
        return self.attachment

    def _figures(self) -> dict[str, float]:
        held = self.attachment
        return {} if held is None else log_figures(held.estimate, held.multipliers)

    def _report_loss(self, loss: float) -> None:
        if self.attachment is not None:
            self.attachment.report_loss(loss)

    def _report_metrics(self, metrics: Mapping[str, Any]) -> None:
        held = self.attachment
        if held is not None and held.stores_metrics:
            held.report_metrics(held.step, {k: v for k, v in metrics.items() if _is_figure(k, v)})


class RecorderHolder(Holder):
    """Holds a recorder.

    Args:
        save_to: File to save the profile to at the end of the training, by the first process.
        **options: What :class:`fslr.torch.Recorder` gets besides what the trainer knows.

    Attributes:
        recorder: The recorder; None before the training begins.

    Raises:
        TypeError: There is no such option.
    """

    _starting_call = "trainer.fit()"

    def __init__(
        self,
        *,
        save_to: str | os.PathLike[str] | None = None,
        **options: Unpack[RecordingOptions],
    ) -> None:
        self.recorder: Recorder | None = None
        self._save_to = save_to
        self._options: Mapping[str, Any] = _checked(options, RecordingOptions, type(self).__name__)
        self._listeners = list(options.get("listeners", ()))

    @property
    def _held(self) -> Recorder | None:
        return self.recorder

    def _begin(self, model: nn.Module, optimizers: Optimizers, **found: Any) -> Recorder:
        given = {**self._options, "listeners": self._listeners, **found}
        self.recorder = Recorder(model, optimizers, **given)
        return self.recorder

    def _figures(self) -> dict[str, float]:
        return {} if self.recorder is None else log_figures(self.recorder.estimate)

    def _report_loss(self, loss: float) -> None:
        pass  # a recording has no advisor

    def _report_metrics(self, metrics: Mapping[str, Any]) -> None:
        pass  # likewise

    def profile(self, **details: Any) -> profile_pb2.ProfileContent:
        """Return what was recorded so far as the content of a profile.

        Args:
            **details: Passed on to :meth:`fslr.torch.Recorder.profile`.

        Raises:
            MeasurementError: No step was measured, or the training has not begun.
        """
        if self.recorder is None:
            raise MeasurementError(f"the training has not begun; call {self._starting_call} first")
        return self.recorder.profile(**details)

    def _save_profile(self) -> None:
        """Save the profile if there is a file for it; what goes wrong is a warning."""
        if self._save_to is None:
            return
        try:
            save_profile(self.profile(), Path(self._save_to))
        except (MeasurementError, OSError) as error:
            _log.warning("the profile was not saved to %s: %s", self._save_to, error)


def _is_figure(name: str, value: Any) -> bool:
    """Return whether a trainer's metric is one number about the model, and not about its speed."""
    if name == "epoch" or name.endswith(("_runtime", "_per_second")):
        return False
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) or getattr(value, "size", 0) == 1  # of numpy


def _checked(options: Mapping[str, Any], kind: Any, callback: str) -> Mapping[str, Any]:
    """Return the options of a callback.

    Raises:
        TypeError: One of them does not exist, or one that is required is missing.
    """
    known = kind.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise TypeError(
            f"{callback} has no option {unknown[0]!r}; besides its own it has {', '.join(known)}"
        )
    if missing := sorted(kind.__required_keys__ - options.keys()):
        raise TypeError(f"{callback} needs the option {missing[0]!r}")
    return options
