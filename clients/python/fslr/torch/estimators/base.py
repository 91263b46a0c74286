"""The base class of the estimators, and the probes that they draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.estimators.sums import ProjectionSums
from fslr.torch.model.batch import Batch
from fslr.torch.model.complex_numbers import as_real
from fslr.torch.model.forward import Forward, Output, eager_execution, unwrap
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.isolation import isolated
from fslr.torch.model.mask import Mask
from fslr.torch.model.sharding import reshard
from fslr.torch.model.update import Update
from fslr.training.estimate import RateEstimate


def _limited(batches: Sequence[Batch], max_examples: int | None) -> Iterator[Batch]:
    """Yield the last batches, with a maximum number of examples in all."""
    room = sum(batch.examples for batch in batches) if max_examples is None else max_examples
    for batch in reversed(batches):
        if room > 0:
            yield batch.select(0, room) if room < batch.examples else batch
        room -= batch.examples


class Probes:
    """Draws probes from its own random generators; the global generators are not used.

    Args:
        seed: The seed of the generators.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def _generator(self, device: torch.device) -> torch.Generator:
        generator = self._generators.get(device)
        if generator is None:
            generator = torch.Generator(device).manual_seed(self._seed)
            self._generators[device] = generator
        return generator

    def cotangent(self, outputs: Tensor) -> Tensor:
        """Return one probe: independent random signs.

        Of all independent entries with mean 0 and variance 1, signs give the estimates with the
        smallest variance. For complex outputs, the real and the imaginary parts are signs.
        """
        if outputs.is_complex():
            return torch.view_as_complex(self.cotangent(*as_real(outputs.detach())))
        generator = self._generator(outputs.device)
        signs = torch.empty(outputs.shape, dtype=outputs.dtype, device=outputs.device)
        return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)

    def states(self) -> dict[str, bytes]:
        """Return the states of the generators by device.

        They are bytes, because loading a checkpoint may move tensors to a device.
        """
        return {
            str(device): bytes(generator.get_state().tolist())
            for device, generator in self._generators.items()
        }

    def load_states(self, states: Mapping[str, bytes]) -> None:
        """Restore states that :meth:`states` returned; devices that do not exist here are skipped.

        Args:
            states: The states by device.

        Raises:
            RuntimeError: A state does not fit the generator of its device.
        """
        generators: dict[torch.device, torch.Generator] = {}
        for name, state in states.items():
            try:
                device = torch.device(name)
                generator = torch.Generator(device)
            except RuntimeError:
                continue  # saved on a machine with different devices
            values = torch.tensor(list(state), dtype=torch.uint8)
            generators[device] = generator.set_state(values)
        self._generators = generators


class Estimator(ABC):
    """Estimates the unit rate of every group of a model from a few backward passes.

    Args:
        model: The model to measure.
        groups: The groups of the model.
        output: Selects the output, with leading dimension B, from the model's result.
        mask: Weighs the output's elements; None: all count the same.
        probes: Number of probes K per measurement, >= 1.
        seed: Seed of the probes; the global generators are not used.

    Attributes:
        probes: The number K of probes in later measurements; slow groups may take a multiple of it.

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
    ) -> None:
        if probes < 1:
            raise MeasurementError(f"probes is {probes}; a measurement needs at least 1")
        self._model = unwrap(model)
        self._forward = Forward(self._model, output, mask)
        self._groups = groups
        self.probes = probes
        self._probes = Probes(seed)

    def measure(
        self,
        batch: Batch | Sequence[Batch],
        update: Update,
        *,
        max_examples: int | None = None,
    ) -> ProjectionSums:
        """Measure all groups at the model's current weights; the model is unchanged afterwards.

        Args:
            batch: The measurement batch; or several, such as the micro-batches of a step, which may
                have different shapes. They are measured one by one, and their sums are added.
            update: The step to measure.
            max_examples: Maximum number of examples, taken from the front of the last batch, and
                then from the earlier ones. None: all.

        Raises:
            MeasurementError: The output's leading dimension is not the batch, or the output does
                not depend on any group.
        """
        batches = [batch] if isinstance(batch, Batch) else list(batch)
        sums: ProjectionSums | None = None
        try:
            with isolated(self._model), eager_execution(), torch.enable_grad():
                for part in _limited(batches, max_examples):
                    if sums is not None and sums.changes:
                        # The linearity error needs no precision: one batch is enough.
                        update = replace(update, applied=None)
                    own = self._sums(part, update)
                    sums = own if sums is None else sums + own
        finally:
            reshard(self._model)
        if sums is None:
            raise MeasurementError("there is no batch to measure; pass at least one")
        return sums

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

    def probe_states(self) -> dict[str, bytes]:
        """Return the states of the probes' generators, for a checkpoint."""
        return self._probes.states()

    def load_probe_states(self, states: Mapping[str, bytes]) -> None:
        """Restore states that :meth:`probe_states` returned."""
        self._probes.load_states(states)

    @abstractmethod
    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        """Measure all groups; called with the model isolated and gradients enabled."""
