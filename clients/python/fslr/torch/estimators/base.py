"""The base class of the estimators."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.estimators.cutting import (
    REFUSALS,
    CutCheck,
    CutRefusedError,
    mixes_examples,
)
from fslr.torch.estimators.probes import Probes
from fslr.torch.model.batch import Batch, EmptyBatchError
from fslr.torch.model.forward import BatchSizeError, Forward, Output, eager_execution, unwrap
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.isolation import isolated
from fslr.torch.model.mask import Mask
from fslr.torch.model.sharding import reshard
from fslr.torch.model.update import Update
from fslr.training.estimate import RateEstimate
from fslr.training.projections import ProjectionSums

AnyRank = Callable[[list[bool]], list[bool]]
"""Returns for each of several flags whether any rank sets it."""

_MAX_LEFT_OUT = 2  # examples of a limited batch, so that no other dimension has its size

_IS_LOSS = (
    "the output is the loss, one number, so its rates say how the loss moves, and the batch counts "
    "as one example; to measure what the model predicts, let it return that as well and select it "
    "(output=...), or attach the module inside that computes it"
)


def _ignore(_message: str) -> None:
    """Take no note of a message."""


class Estimator(ABC):
    """Estimates the unit rate of every group of a model from a few backward passes.

    Args:
        model: The model to measure.
        groups: The groups of the model.
        output: Selects the output, with leading dimension B, from the model's result.
        mask: Weighs the output's elements; None: all count the same.
        probes: Number of probes K per measurement, >= 1.
        seed: Seed of the probes; the global generators are not used.
        output_dim: The dimension of the output that counts the examples, >= 0.
        any_rank: For a sharded model, returns for each of several flags whether any rank sets it,
            so that all ranks make the same passes. None: this process decides for itself.

    Attributes:
        probes: The number K of probes in later measurements; slow groups may take a multiple of it.
        repeats: How many times as many probes the newest measurement used.
        on_notice: Called with what the user should know about the batches; each message comes once.

    Raises:
        MeasurementError: ``probes`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        *,
        output: Output = None,
        mask: Mask = None,
        probes: int = 1,
        seed: int = 0,
        output_dim: int = 0,
        any_rank: AnyRank | None = None,
    ) -> None:
        if probes < 1:
            raise MeasurementError(f"probes is {probes}; a measurement needs at least 1")
        self._model = unwrap(model)
        self._forward = Forward(self._model, output, mask, dim=output_dim)
        self._groups = groups
        self.probes = probes
        self.repeats = 1
        self._probes = Probes(seed)
        self.on_notice: Callable[[str], None] = _ignore
        self._noticed: set[str] = set()
        self._has_left_out = False
        self._is_sharded = any_rank is not None
        self._any_rank = any_rank or list
        # By pattern of batches: whether the first input counts the examples, and whether the first
        # examples give the same outputs alone.
        self._guesses: dict[tuple[object, ...], bool] = {}
        self._front_is_right: dict[tuple[object, ...], bool] = {}
        # Has the outputs of the whole batch whose front is measured, if they are known.
        self._cutting: CutCheck | None = None
        self._is_tried = False  # whether the front is right turns out while it is measured

    def measure(
        self,
        batch: Batch | Sequence[Batch],
        update: Update,
        *,
        max_examples: int | None = None,
        repeats: int = 1,
    ) -> ProjectionSums:
        """Measure all groups at the model's current weights; the model is unchanged afterwards.

        Args:
            batch: The measurement batch; or several, such as the micro-batches of a step, which may
                have different shapes. They are measured one by one, and their sums are added.
            update: The step to measure.
            max_examples: Maximum number of examples, taken from the front of the last batch, and
                then from the earlier ones. A batch is only cut if its front gives the same outputs
                as within the whole batch; otherwise the last batch is measured as a whole, and
                earlier ones are left out. None: all.
            repeats: How many times as many probes are used, if the last batch may be cut to
                ``max_examples``. More probes on few examples take less time than many examples,
                since each is passed forward only once, and the relative error is nearly the same.

        Raises:
            MeasurementError: There is no batch; or the output for the last one does not fit it, or
                does not depend on any group. Earlier batches for which this is so are left out.
            EmptyBatchError: No batch has examples. One that has none is left out.
        """
        batches = [batch] if isinstance(batch, Batch) else list(batch)
        if not batches:
            raise MeasurementError("there is no batch to measure; pass at least one")
        room = math.inf if max_examples is None else max_examples
        try:
            with isolated(self._model), eager_execution(), torch.enable_grad():
                self.repeats = repeats
                sums: ProjectionSums | None = None
                while sums is None:
                    try:
                        sums = self._sums_of_last(batches[-1], update, room)
                    except EmptyBatchError:
                        batches.pop()  # an epoch's last micro-batch may have no examples
                        if not batches:
                            raise
                for earlier in reversed(batches[:-1]):
                    if sums.changes:
                        # The linearity error needs no precision: one batch is enough.
                        update = replace(update, applied=None)
                    own = self._sums_of_earlier(earlier, update, room - sums.examples)
                    sums = sums if own is None else sums + own
        finally:
            reshard(self._model)
        if self._forward.returns_loss:
            self._notice(_IS_LOSS)
        return sums

    @property
    def _probe_count(self) -> int:
        """The number of probes of the measurement under way."""
        return self.probes * self.repeats

    def _sums_of_last(self, batch: Batch, update: Update, room: float) -> ProjectionSums:
        if self.repeats > 1 and mixes_examples(self._model):
            room, self.repeats = math.inf, 1
        try:
            batch, cutting = self._counted_for(batch, room)
            if self._can_be_tried(batch, room, cutting):
                sums = self._tried(batch, update, room, cutting)
                if sums is not None:
                    return sums
            if not self._may_be_limited(batch, room, cutting):
                if self.repeats == 1:
                    self._notice(
                        f"the first {room} of {batch.examples} examples do not give the same "
                        "outputs alone as in their batch, so the whole batch is measured and not "
                        f"only {room}"
                    )
                room, self.repeats = math.inf, 1
            if room < batch.examples:
                cutting.keep_front(int(room))
            self._cutting = cutting
            return self._fitting_sums(self._limited(batch, room), update)
        finally:
            self._cutting = None

    def _can_be_tried(self, batch: Batch, room: float, cutting: CutCheck) -> bool:
        """Return whether to measure the front of a batch, and to check the outputs of that.

        It saves the check a pass. Where random numbers are drawn, the outputs of a measurement
        cannot be compared with those for the whole batch.

        Args:
            batch: The batch.
            room: Maximum number of examples.
            cutting: Compares outputs.
        """
        return (
            not self._is_sharded
            and room < batch.examples
            and batch.pattern() not in self._front_is_right
            and batch.may_be_tried_in_parts_of(int(room))
            and cutting.accepts_whole
            and cutting.knows_outputs
        )

    def _tried(
        self, batch: Batch, update: Update, room: float, cutting: CutCheck
    ) -> ProjectionSums | None:
        """Measure the front of a batch; None if it may not be measured alone."""
        cutting.keep_front(int(room))
        self._cutting, self._is_tried = cutting, True
        try:
            with self._probes.returned_on_failure():
                sums = self._sums(self._limited(batch, room), update)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as error:
            if isinstance(error, CutRefusedError):
                self._front_is_right[batch.pattern()] = False
            return None
        finally:
            self._is_tried = False
        self._front_is_right[batch.pattern()] = True
        return sums

    def _check_outputs(self, start: int, outputs: Tensor) -> None:
        """Compare the outputs of a measured part with those of the whole batch, if it is tried.

        Args:
            start: The first example of the part.
            outputs: The outputs for the part.

        Raises:
            CutRefusedError: They differ.
        """
        if self._is_tried and self._cutting and not self._cutting.agrees(start, outputs):
            raise CutRefusedError(
                f"the {len(outputs)} examples from {start} do not give the same outputs alone as "
                "in their batch; measure the whole batch"
            )

    def _sums_of_earlier(self, batch: Batch, update: Update, room: float) -> ProjectionSums | None:
        """Measure a batch, if there is room for it and the model's result can be measured.

        Raises:
            OutOfMemoryError: The batch does not fit into memory.
        """
        if room <= 0:
            return None
        try:
            batch, cutting = self._counted_for(batch, room)
            if self._may_be_limited(batch, room, cutting):
                return self._fitting_sums(self._limited(batch, room), update)
        except torch.OutOfMemoryError:
            raise
        except EmptyBatchError:
            return None
        except REFUSALS as error:
            if not self._has_left_out:
                self._has_left_out = True
                self._notice(
                    "an earlier training call of the step is left out, because it cannot be "
                    f"measured like the last one: {type(error).__name__}: {error}"
                )
        return None

    def _fitting_sums(self, batch: Batch, update: Update) -> ProjectionSums:
        """Measure a batch, whose examples the output counts if the inputs do not."""
        try:
            return self._sums(batch, update)
        except BatchSizeError:
            if not batch.is_guess:
                raise
        self._guesses[batch.pattern()] = False
        return self._sums(self._counted(batch), update)

    @torch.no_grad()
    def _counted(self, batch: Batch, cutting: CutCheck | None = None) -> Batch:
        """Return a batch with as many examples as its output has, if the inputs do not say it.

        Args:
            batch: The batch.
            cutting: Calls the model to find out, if it is not known. None: the guess stands.
        """
        pattern = batch.pattern()
        if not batch.is_guess or self._guesses.get(pattern, cutting is None):
            return batch
        with isolated(self._model):  # what is measured does not depend on whether this was checked
            if pattern not in self._guesses and cutting is not None and cutting.accepts_whole:
                self._guesses[pattern] = True
                return batch
            examples = self._forward.examples_of_output(batch)
        self._guesses.setdefault(pattern, examples == batch.examples)
        if self._guesses[pattern]:
            return batch
        self._notice(
            f"the first input has {batch.examples} examples and the output {examples}, so those of "
            "the output count; rates are right, and measuring may be faster with batch_dim or "
            "count_examples"
        )
        return replace(batch, examples=examples, is_guess=False)

    def _counted_for(self, batch: Batch, room: float) -> tuple[Batch, CutCheck]:
        """Return a batch with its number of examples, and a check of its parts.

        Args:
            batch: The batch.
            room: Maximum number of examples, at least 1; inf: no limit.
        """
        cutting = CutCheck(self._forward, batch)
        counted = self._counted(batch, cutting if math.isfinite(room) else None)
        return counted, cutting if counted is batch else CutCheck(self._forward, counted)

    def _may_be_limited(self, batch: Batch, room: float, cutting: CutCheck) -> bool:
        """Return whether a batch may be cut to ``room``.

        It may if it has no more examples, or if its front gives the same outputs alone.

        Args:
            batch: The batch with its number of examples.
            room: Maximum number of examples, at least 1; inf: no limit.
            cutting: Compares outputs.
        """
        size, pattern = int(min(room, batch.examples)), batch.pattern()
        is_cut = size < batch.examples
        if self._any_rank([is_cut and pattern not in self._front_is_right])[0]:
            with isolated(self._model):
                is_wrong = not cutting.passes(0, size)
            self._front_is_right[pattern] = not self._any_rank([is_wrong])[0]
        return not is_cut or self._front_is_right[pattern]

    def _limited(self, batch: Batch, room: float) -> Batch:
        """Return the front of a batch.

        A few examples fewer are taken if another dimension has the size ``room`` by chance, because
        a batch in which two sizes coincide is checked like the first one of a training.

        Args:
            batch: The batch.
            room: Maximum number of examples, at least 1.
        """
        if room >= batch.examples:
            return batch
        least = max(1, int(room) - _MAX_LEFT_OUT)
        parts = [batch.front(size) for size in range(int(room), least - 1, -1)]
        differ = self._any_rank([part.pattern() != batch.pattern() for part in parts])
        same = (part for part, differs in zip(parts, differ, strict=True) if not differs)
        return next(same, parts[0])

    def _notice(self, message: str) -> None:
        if message not in self._noticed:
            self._noticed.add(message)
            self.on_notice(message)

    def estimate(self, batch: Batch, update: Update) -> RateEstimate:
        """Measure all groups and return the estimated rates.

        Args:
            batch: The measurement batch.
            update: The step to measure.

        Raises:
            MeasurementError: As for :meth:`measure`; or a rate is not finite.
        """
        sums = self.measure(batch, update)
        return sums.estimate([group.name for group in self._groups], update.learning_rates)

    @property
    def probes_per_requested(self) -> int:
        """How many probes the next measurement uses for each of :attr:`probes`."""
        return 1

    def probe_states(self) -> dict[str, bytes]:
        """Return the states of the probes' generators, for a checkpoint."""
        return self._probes.states()

    def load_probe_states(self, states: Mapping[str, bytes]) -> None:
        """Restore states that :meth:`probe_states` returned."""
        self._probes.load_states(states)

    @abstractmethod
    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        """Measure all groups; called with the model isolated and gradients enabled.

        It passes the outputs of each part that it measures to :meth:`_check_outputs`.
        """
