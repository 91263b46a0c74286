"""Contexts that call a model and then restore its weights, buffers, attributes and generators."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@contextmanager
def swapped_weights(weights: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Let each parameter hold a different tensor inside the context.

    Storages are swapped, not copied: the original values come back bit-identical, even after an
    exception.

    Args:
        weights: The tensor of each parameter inside the context; of the same shape, dtype and
            device.
    """
    originals = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, tensor in weights.items():
            parameter.data = tensor
        yield
    finally:
        restore_all(originals.items(), _set_data)


def _set_data(parameter: nn.Parameter, tensor: Tensor) -> None:
    parameter.data = tensor


def restore_all(
    items: Iterable[tuple[_Key, _Value]], restore: Callable[[_Key, _Value], None]
) -> None:
    """Restore all of some things, whichever of them fails. A thing that fails is tried once more.

    Args:
        items: What to restore, each with its original value.
        restore: Restores one.

    Raises:
        Exception: The first one that was raised, after all others are restored.
    """
    failure: Exception | None = None
    failed = []
    for item in items:
        try:
            restore(*item)
        except Exception as error:  # noqa: BLE001 - the others must be restored
            failure = failure or error
            failed.append(item)
    for item in failed:
        with suppress(Exception):
            restore(*item)
    if failure is not None:
        raise failure


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Undo the side effects of forward passes, and disable hooks that would alter a measurement.

    Inside the context the model works on copies of its buffers, such as batch-norm statistics.
    Afterwards the original buffers are back, as are the modules' attributes (a hidden state, a
    counter) and the states of random generators: those of Python, NumPy, and PyTorch on CPU and
    CUDA, and those that are attributes of modules.
    Lists and tensors that are not buffers and that a forward pass changes in place are not
    restored.

    Backward hooks of parameters and modules are disabled: they belong to the training's gradients,
    and a hook that changes gradients would change the measurement. Embeddings do not renormalize
    their weights (``max_norm``). Gradients are not saved: nothing inside may call ``backward()``.

    Args:
        model: The model that is called inside.
    """
    modules, parameters = list(model.modules()), list(model.parameters())
    with (
        preserved_generators(parameters),
        preserved_attributes(modules),
        _copied_buffers(modules),
        _disabled_hooks(modules, parameters),
    ):
        for module in modules:
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                module.max_norm = None  # preserved_attributes restores it
        yield


@contextmanager
def preserved_generators(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Restore the states of the random generators afterwards.

    Args:
        parameters: The model's parameters; the generators of their devices are included.
    """
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"}, key=str)
    # NumPy's legacy generator is global, and many libraries draw from it.
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


class SideEffects:
    """Shows what a model's calls have changed since it was made.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._devices = sorted({p.device for p in model.parameters() if p.is_cuda}, key=str)
        self._generators = self._generator_states()
        self._values, self._versions = self._model_state()

    @property
    def are_random(self) -> bool:
        """Whether numbers were drawn from the global generators."""
        for before, after in zip(self._generators, self._generator_states(), strict=True):
            if isinstance(before, Tensor) and isinstance(after, Tensor):
                if not torch.equal(before, after):
                    return True
            elif before != after:
                return True
        return False

    @property
    def are_in_model(self) -> bool:
        """Whether an attribute of a module was replaced, or a buffer written to."""
        values, versions = self._model_state()
        return (
            versions != self._versions
            or len(values) != len(self._values)
            or not all(map(_is_same, self._values, values))
        )

    def _generator_states(self) -> list[object]:
        of_numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - the global one
        return [
            random.getstate(),
            of_numpy["pos"],
            of_numpy["key"].tobytes(),
            torch.get_rng_state(),
            *map(torch.cuda.get_rng_state, self._devices),
        ]

    def _model_state(self) -> tuple[list[object], list[int]]:
        values: list[object] = []
        versions: list[int] = []
        for module in self._modules:
            values += vars(module).values()
            for buffer in module._buffers.values():  # noqa: SLF001 - faster than buffers()
                if buffer is not None:
                    values.append(buffer)
                    versions.append(buffer._version)  # noqa: SLF001 - there is no public one
        return values, versions


def _is_same(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) in _VALUES and one == other)


_VALUES = {bool, int, float, str, bytes}


@contextmanager
def preserved_attributes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore the attributes of modules afterwards, and the states of generators among them.

    Args:
        modules: All modules of the model.
    """
    attributes = [vars(module) for module in modules]
    states = list(_generator_states(attributes))
    with _preserved(attributes):
        try:
            yield
        finally:
            restore_all(states, _put_back)


def _put_back(put: Callable[[Any], object], state: Any) -> None:
    put(state)


def _generator_states(
    attributes: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[Callable[[Any], object], Any]]:
    """Return the state of each generator that a module owns, after what puts it back."""
    for value in (value for entries in attributes for value in entries.values()):
        match value:
            case torch.Generator():
                yield value.set_state, value.get_state()
            case random.Random():  # noqa: S311 - a training's, not a secret's
                yield value.setstate, value.getstate()
            case np.random.RandomState():
                yield value.set_state, value.get_state()
            case np.random.Generator():
                yield partial(setattr, value.bit_generator, "state"), value.bit_generator.state


@contextmanager
def _copied_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    # PyTorch has no public way to replace a buffer's tensor and to put the original back.
    buffers = [module._buffers for module in modules]  # noqa: SLF001
    with _preserved(buffers):
        for entries in buffers:
            for name, buffer in entries.items():
                if buffer is not None:
                    entries[name] = buffer.detach().clone()
        yield


@contextmanager
def _preserved(dicts: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Restore the entries of dicts afterwards."""
    originals = [dict(entries) for entries in dicts]
    try:
        yield
    finally:
        for entries, original in zip(dicts, originals, strict=True):
            # Never cleared first: other threads may read the entries meanwhile.
            for name in [name for name in entries if name not in original]:
                del entries[name]
            entries.update(original)


@contextmanager
def _disabled_hooks(
    modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]
) -> Iterator[None]:
    # PyTorch has no public way to disable hooks.
    hooked = {p: p._backward_hooks for p in parameters if p._backward_hooks}  # noqa: SLF001
    try:
        for parameter in hooked:
            parameter._backward_hooks = None  # noqa: SLF001
        for module in modules:  # preserved_attributes restores those of modules
            if module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001
                module._backward_hooks = OrderedDict()  # noqa: SLF001
                module._backward_pre_hooks = OrderedDict()  # noqa: SLF001
        yield
    finally:
        restore_all(hooked.items(), _set_hooks)


def _set_hooks(parameter: nn.Parameter, hooks: Any) -> None:
    parameter._backward_hooks = hooks  # noqa: SLF001
