"""The random numbers that estimators draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from fslr.torch.model.complex_numbers import as_real


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

    @contextmanager
    def returned_on_failure(self) -> Iterator[None]:
        """Let an exception leave the generators as they were."""
        states = {device: made.get_state() for device, made in self._generators.items()}
        try:
            yield
        except BaseException:
            self._generators = {
                device: torch.Generator(device).set_state(state) for device, state in states.items()
            }
            raise

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
