"""Run a model at other weights and leave no trace: weights, buffers and RNG come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def weights_swapped(weights: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Let each parameter hold the given tensor, and its own storage again afterwards.

    Storages are swapped, not copied: the parameters come back bit for bit, whatever happens inside.

    Args:
        weights: The tensor that each parameter holds inside; same shape, dtype and device.
    """
    originals = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, tensor in weights.items():
            parameter.data = tensor
        yield
    finally:
        for parameter, original in originals.items():
            parameter.data = original


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Keep what a forward pass changes besides its result: buffers and random number streams.

    Inside, the model works on copies of its buffers (batch-norm statistics), and the CPU and CUDA
    generators run on; afterwards the buffers' own tensors are back and the generators stand where
    they stood. Gradients need no care here: nothing inside may call ``backward()``.

    Args:
        model: The model that is called inside.
    """
    # PyTorch has no public way to put another tensor in a buffer's place and the old one back.
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]  # noqa: SLF001
    devices = sorted(
        {p.device.index for p in model.parameters() if p.device.type == "cuda"}, key=str
    )
    with torch.random.fork_rng(devices=devices):
        try:
            for present, own in buffers:
                for name, buffer in own.items():
                    if buffer is not None:
                        present[name] = buffer.detach().clone()
            yield
        finally:
            for present, own in buffers:
                present.clear()
                present.update(own)
