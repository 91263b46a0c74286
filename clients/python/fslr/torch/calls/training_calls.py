"""Watches a model's training calls: the batches of the step under way, by reference."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fslr.torch.calls.compiled_calls import CompiledCall, Releases
from fslr.torch.calls.measured_modules import is_being_measured
from fslr.torch.calls.scripting import MARK, allow_scripting, end_scripting
from fslr.torch.model.batch import AutocastState
from fslr.torch.model.forward import unwrap
from fslr.torch.model.structure import map_tensors, tensors_in

# Before PyTorch 2.7, exports are seen as calls.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
_log = logging.getLogger("fslr")

_MIN_EARLIER_BYTES = 64 * 2**20
_PLAIN = (int, float, str)


@dataclass(slots=True)  # not frozen: one is made in each step, and that takes half the time
class TrainingCall:
    """One call of the model.

    Attributes:
        args: Positional arguments; none of them has a graph, so that no graph is kept alive.
        kwargs: Keyword arguments, likewise.
        autocasts: The states of autocast during the call, one per type of device.
        is_training: Whether the model was in train mode.
        tensors: The tensors among the arguments, each with its version at the call.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    autocasts: tuple[AutocastState, ...]
    is_training: bool
    tensors: list[tuple[Tensor, int]]

    @property
    def is_changed(self) -> bool:
        """Whether an argument was written to since the call."""
        return any(_version(tensor) != version for tensor, version in self.tensors)

    @property
    def is_mapped(self) -> bool:
        """Whether it was made inside of ``torch.func.vmap``, whose tensors exist only there."""
        return any(_is_mapped(tensor) for tensor, _ in self.tensors)

    def rows(self, dim: int) -> int:
        """Return the size of a dimension of the first tensor that has it, at least 1.

        Args:
            dim: The dimension of inputs that counts examples.
        """
        try:
            sizes = (tensor.shape[dim] for tensor, _ in self.tensors if tensor.dim() > dim)
            return max(1, next(sizes, 1))
        except Exception:  # noqa: BLE001 - tensors of any kind
            return 1

    @property
    def size(self) -> int:
        """Size of the tensors in bytes."""
        try:
            return sum(tensor.numel() * tensor.element_size() for tensor, _ in self.tensors)
        except Exception:  # noqa: BLE001 - tensors of any kind
            return 0

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for calls with the same tensors and the same numbers and words.

        Those of a repeated pass have them. Empty: it is not known, or there is no tensor.
        """
        if not self.tensors:
            return ()
        try:
            named = [item for item in self.kwargs.items() if isinstance(item[1], _PLAIN)]
            listed = [value for value in self.args if isinstance(value, _PLAIN)]
            return *(_memory(*noted) for noted in self.tensors), *listed, *named
        except Exception:  # noqa: BLE001 - tensors of any kind
            return ()


class Timer(Protocol):
    """Times what hooks do for each step."""

    def begin_hooks(self) -> None:
        """Begin to time it."""
        ...

    def end_hooks(self) -> None:
        """Pause."""
        ...


class NoTimer:
    """Times nothing."""

    def begin_hooks(self) -> None:
        """Do nothing."""

    def end_hooks(self) -> None:
        """Do nothing."""


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - there is no public one


def _memory(tensor: Tensor, version: int) -> tuple[object, ...]:
    """Return where a tensor is in memory, and its version at a call."""
    try:
        return tensor.data_ptr(), tensor.shape, tensor.stride(), version
    except RuntimeError:  # sparse, nested and wrapped tensors have no single memory
        return id(tensor), tensor.shape, (), version


def _is_mapped(tensor: Tensor) -> bool:
    functorch: Any = torch._C._functorch  # noqa: SLF001 - there is no public one
    while functorch.is_gradtrackingtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return bool(functorch.is_batchedtensor(tensor))


def _without_graph(tensor: Tensor) -> Tensor:
    """Return a tensor that shares its memory and keeps no graph alive."""
    return tensor.detach().requires_grad_() if tensor.grad_fn is not None else tensor


class TrainingCalls:
    """The latest training calls of a model since the last step.

    Calls with gradients enabled count. Those in eval mode count only if there are none in train
    mode: a model may be trained in eval mode, but a validation must not hide the training batch.
    A pass that is repeated on the same tensors (a closure, a recomputed checkpoint) counts once. A
    call whose inputs were written to since (a buffer that each micro-batch is copied into) is left
    out, unless it is the latest.

    Args:
        model: The model.
        device_types: The types of devices whose autocast state is kept.
        examples: Maximum number of examples of all kept calls together. The latest call is kept in
            any case. The inputs of the others take no more memory than the parameters, or 64 MiB.
        batch_dim: The dimension of inputs that counts examples.

    Attributes:
        was_called: Whether the training called the model since this was last set to False.
        on_call: Called before each training call, except in compiled code; it must not raise.
        releases: What is done at calls in compiled code, except the first one after each step.
        timer: Times what is done at each training call.
    """

    def __init__(
        self, model: nn.Module, device_types: list[str], *, examples: int, batch_dim: int
    ) -> None:
        self.was_called = False
        self.on_call: Callable[[], None] = _do_nothing
        self.timer: Timer = NoTimer()
        self._device_types = device_types
        self._max_examples = examples
        self._batch_dim = batch_dim
        parameters = sum(p.numel() * p.element_size() for p in model.parameters())
        self._max_earlier_bytes = max(parameters, _MIN_EARLIER_BYTES)
        self._calls: list[TrainingCall] = []
        self._states: dict[object, AutocastState] = {}
        # The arguments of the latest call in compiled code, where nothing else can be done.
        self._compiled: CompiledCall | None = None
        self.releases = Releases()
        self._failure: Exception | None = None  # of a call that is not kept
        self._model = weakref.ref(model)
        allow_scripting(model)
        # A measurement calls the module inside of wrappers and so runs its pre-hooks again. So the
        # call is noted before the other pre-hooks of that module.
        self._handle = model.register_forward_pre_hook(
            _CallWatcher(self._see), with_kwargs=True, prepend=model is unwrap(model)
        )

    def latest(self) -> list[TrainingCall]:
        """Return the calls to measure, in their order; the latest is last.

        Raises:
            Exception: A call could not be kept, so that those that were are not all of the step.
        """
        if self._failure is not None:
            raise self._failure
        if (call := self._compiled) is not None:
            self._add(call.args, call.kwargs, call.autocasts, is_training=True)
            self._compiled = None
        return [call for call in self._calls[:-1] if not call.is_changed] + self._calls[-1:]

    def clear(self) -> None:
        """Forget all calls of the step, and release their tensors."""
        self._calls = []
        self._failure = None
        if not self.was_called:  # else it belongs to the next step
            self._compiled = None

    def close(self) -> None:
        """Stop watching, and forget all calls."""
        self.releases.action = None
        self._handle.remove()
        model = self._model()
        if model is not None:
            end_scripting(model)
        self.clear()

    def _see(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a reference to a training call; its tensors are not copied."""
        if _is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return  # an export or a trace is no training, whatever its tensors are
        if not torch.is_grad_enabled() or is_being_measured(model):
            return
        self.was_called = True
        if torch.compiler.is_compiling():
            if model.training or self._compiled is None:
                self._compiled = CompiledCall(args, kwargs, self._autocasts(), self.releases)
        else:
            self.timer.begin_hooks()
            try:
                self.on_call()
                self._keep(args, kwargs, is_training=model.training)
            finally:
                self.timer.end_hooks()

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_training: bool) -> None:
        """Keep a call that is not compiled; it never raises."""
        try:
            self._add(args, kwargs, self._known_autocasts(), is_training=is_training)
        except Exception as error:  # noqa: BLE001 - the training's own call is under way
            self._failure = error

    def _known_autocasts(self) -> tuple[AutocastState, ...]:
        """Return the same without new objects, where nothing is compiled."""
        known = self._states
        found = []
        for kind in self._device_types:
            state = kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
            found.append(known.get(state) or known.setdefault(state, AutocastState(*state)))
        return tuple(found)

    def _autocasts(self) -> tuple[AutocastState, ...]:
        return tuple(AutocastState.current(kind) for kind in self._device_types)

    def _add(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[AutocastState, ...],
        *,
        is_training: bool,
    ) -> None:
        call = self._call(args, kwargs, autocasts, is_training=is_training)
        if not self._calls:
            self._calls = [call]
            return
        if not is_training and any(other.is_training for other in self._calls):
            return
        key = call.key
        kept = [
            other
            for other in self._calls
            if other.is_training == is_training and not (key and other.key == key)
        ]
        room = self._max_examples - call.rows(self._batch_dim)
        memory = self._max_earlier_bytes
        count = 0
        for other in reversed(kept):
            room, memory = room - other.rows(self._batch_dim), memory - other.size
            if room < 0 or memory < 0:
                break
            count += 1
        self._calls = [*kept[len(kept) - count :], call]

    def _call(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[AutocastState, ...],
        *,
        is_training: bool,
    ) -> TrainingCall:
        # Whether the arguments fit is checked after the step: nothing may be raised here.
        versions: list[tuple[Tensor, int]] = []
        try:
            tensors = _plain_tensors(args, kwargs)
            if tensors is None:
                args = map_tensors(args, _without_graph)
                kwargs = map_tensors(kwargs, _without_graph)
                tensors = tensors_in((args, kwargs))
            versions = [(tensor, _version(tensor)) for tensor in tensors]
        except Exception:  # noqa: BLE001 - containers of any kind, with methods of any kind
            _log.debug("the arguments of a training call are not understood", exc_info=True)
        return TrainingCall(args, kwargs, autocasts, is_training, versions)


def _plain_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor] | None:
    """Return the tensors of a call whose arguments are neither nested nor have a graph, or None."""
    found: list[Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                return None
            found.append(value)
        elif not (value is None or isinstance(value, _PLAIN)):
            return None
    return found


class _CallWatcher:
    """A forward pre-hook that copies and pickles of the model do not contain."""

    fslr_watches_calls = True

    def __init__(self, see: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]) -> None:
        self._see = see

    @property
    def __name__(self) -> str:
        """Only TorchScript asks for it, where the module is a part of what it compiles."""
        raise AttributeError(
            "TorchScript cannot compile a module with an attached part; compile the attached "
            "module itself, or close the attachment first"
        )

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._see(model, args, kwargs)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _watch_nothing, ()  # deepcopy comes this way too


def _watch_nothing() -> Callable[..., None]:
    """Return what a copy of a model has in place of the watcher."""
    return _ignore_call


def _ignore_call(_model: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Let a call of a copied model pass."""


setattr(_ignore_call, MARK, True)


def _do_nothing() -> None:
    """Take no note of a call."""
