"""What all estimators have in common: a model, its groups, and probes of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fslr.errors import MeasurementError
from fslr.torch.estimators.sums import ProjectionSums
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward, Output, plainly_called, unwrapped
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.isolation import isolated
from fslr.torch.model.sharding import reshard
from fslr.torch.model.update import Update
from fslr.training.estimate import RateEstimate


class Probes:
    """Draws probes from generators of its own; the global ones are never touched.

    Args:
        seed: Where the generators begin.
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
        """Return one probe: independent signs, the least variance of all unit-variance entries."""
        generator = self._generator(outputs.device)
        signs = torch.empty(outputs.shape, dtype=outputs.dtype, device=outputs.device)
        return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)

    def states(self) -> dict[str, bytes]:
        """Return where each device's generator stands; no tensors, which loading might move."""
        return {
            str(device): bytes(generator.get_state().tolist())
            for device, generator in self._generators.items()
        }

    def load_states(self, states: Mapping[str, bytes]) -> None:
        """Continue where :meth:`states` was called; devices that this machine lacks are skipped.

        Args:
            states: The states that it returned.

        Raises:
            RuntimeError: A state does not belong to a generator of its device.
        """
        generators: dict[torch.device, torch.Generator] = {}
        for name, state in states.items():
            try:
                device = torch.device(name)
                generator = torch.Generator(device)
            except RuntimeError:
                continue  # taken on another machine
            values = torch.tensor(list(state), dtype=torch.uint8)
            generators[device] = generator.set_state(values)
        self._generators = generators


class Estimator(ABC):
    """Estimates the unit rate of every group of a model from a few backward passes.

    Args:
        model: The model to measure.
        groups: Its groups.
        output: Which tensor, leading dimension B, of what the model returns.
        probes: Number of probes K per measurement, >= 1.
        seed: Seed of the probes' own generators; the global generators are never touched.

    Attributes:
        probes: The number K that later measurements take; a slow route may take a multiple of it.

    Raises:
        MeasurementError: ``probes`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        *,
        output: Output = None,
        probes: int = 1,
        seed: int = 0,
    ) -> None:
        if probes < 1:
            raise MeasurementError(f"probes is {probes}; a measurement needs at least 1")
        self._model = unwrapped(model)
        self._forward = Forward(self._model, output)
        self._groups = groups
        self.probes = probes
        self._drawn = Probes(seed)

    def measure(self, batch: Batch, update: Update) -> ProjectionSums:
        """Measure all groups at the model's present weights; the model is left as it was.

        Args:
            batch: The measurement batch.
            update: The step.

        Raises:
            MeasurementError: The output's leading dimension is not the batch, or the output does
                not depend on any group.
        """
        try:
            with isolated(self._model), plainly_called(), torch.enable_grad():
                return self._sums(batch, update)
        finally:
            reshard(self._model)

    def estimate(self, batch: Batch, update: Update) -> RateEstimate:
        """Measure all groups and return what comes of it.

        Args:
            batch: The measurement batch.
            update: The step.

        Raises:
            MeasurementError: As :meth:`measure`; or a rate is not finite.
        """
        sums = self.measure(batch, update)
        return sums.estimate([group.name for group in self._groups], update.learning_rates)

    def probe_states(self) -> dict[str, bytes]:
        """Return where the probes' generators stand, for a checkpoint."""
        return self._drawn.states()

    def load_probe_states(self, states: Mapping[str, bytes]) -> None:
        """Go on where :meth:`probe_states` was taken."""
        self._drawn.load_states(states)

    @abstractmethod
    def _sums(self, batch: Batch, update: Update) -> ProjectionSums:
        """Measure; the model is isolated, and gradients are enabled."""
