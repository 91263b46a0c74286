"""Run a model at other weights and leave no trace: weights, buffers and generators come back."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
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
    """Keep what a forward pass changes besides its result, and keep others out of what follows it.

    Inside, the model works on copies of its buffers (batch-norm statistics), and the generators of
    Python, NumPy, and PyTorch on CPU and CUDA run on; afterwards the buffers' own tensors are back,
    so are the modules' attributes (a hidden state, a counter), and the generators stand where they
    stood. Lists and tensors that a forward pass changes in place, without being buffers, are not
    put back. Hooks on gradients, of parameters and modules, rest: they belong to the training's
    gradients, and one that changes them would change what is measured. Embeddings do not write
    ``max_norm`` into their weights. Gradients need no care here: nothing inside may call
    ``backward()``.

    Args:
        model: The model that is called inside.
    """
    modules, parameters = list(model.modules()), list(model.parameters())
    with (
        generators_kept(parameters),
        attributes_kept(modules),
        _buffers_copied(modules),
        _no_hooks(modules, parameters),
    ):
        for module in modules:
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                module.max_norm = None  # `attributes_kept` puts it back
        yield


@contextmanager
def generators_kept(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let the generators of random numbers run on, and stand where they stood afterwards.

    Args:
        parameters: The model's, which tell on which devices.
    """
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"}, key=str)
    # NumPy's old generator, which all share, is what libraries draw from.
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)  # noqa: NPY002


@contextmanager
def attributes_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules set attributes, and have their former ones afterwards.

    Args:
        modules: All of a model.
    """
    with _kept([vars(module) for module in modules]):
        yield


@contextmanager
def _buffers_copied(modules: Iterable[nn.Module]) -> Iterator[None]:
    # PyTorch has no public way to put another tensor in a buffer's place and the old one back.
    buffers = [module._buffers for module in modules]  # noqa: SLF001
    with _kept(buffers):
        for present in buffers:
            for name, buffer in present.items():
                if buffer is not None:
                    present[name] = buffer.detach().clone()
        yield


@contextmanager
def _kept(entries: Sequence[dict[str, Any]]) -> Iterator[None]:
    own = [dict(present) for present in entries]
    try:
        yield
    finally:
        for present, former in zip(entries, own, strict=True):
            # Not emptied and filled: other threads may look into it meanwhile.
            for name in [name for name in present if name not in former]:
                del present[name]
            present.update(former)


@contextmanager
def _no_hooks(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    # Nor has it one to set hooks aside.
    hooked = {p: p._backward_hooks for p in parameters if p._backward_hooks}  # noqa: SLF001
    try:
        for parameter in hooked:
            parameter._backward_hooks = None  # noqa: SLF001
        for module in modules:  # of modules, `attributes_kept` puts them back
            if module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001
                module._backward_hooks = OrderedDict()  # noqa: SLF001
                module._backward_pre_hooks = OrderedDict()  # noqa: SLF001
        yield
    finally:
        for parameter, hooks in hooked.items():
            parameter._backward_hooks = hooks  # noqa: SLF001
