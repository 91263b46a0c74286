"""Forward passes of modules on empty batches: which tensors are made of which, and by what.

A module runs as a copy without values, without hooks and in evaluation mode, on an empty batch on
the CPU. So nothing is computed, no memory is taken, and the model does not change.
"""

from __future__ import annotations

import copy
import enum
import inspect
import math
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fslr.torch.model.function_modes import opened
from fslr.torch.model.sharding import is_shard
from fslr.torch.model.structure import tensors_in

_MAX_FUNCTIONS = 10_000  # of one forward pass
_RESHAPES = frozenset({"view", "reshape"})
_MAX_PARTS = 3  # of a module, whose shapes may be those of its input


class Op(enum.Enum):
    """What a function does with a factor on its input."""

    SUM = "sum"
    PRODUCT = "product"
    LINEAR = "linear"
    NORM = "norm"
    THROUGH = "through"  # without weights of its own, and a factor passes through
    OTHER = "other"


_NAMES: Mapping[Op, str] = {
    Op.SUM: "add add_ __add__ __radd__ __iadd__",
    Op.PRODUCT: "mul mul_ __mul__ __rmul__ __imul__ div div_ __truediv__ __itruediv__",
    Op.LINEAR: "linear matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm einsum conv1d conv2d "
    "conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    Op.NORM: "layer_norm batch_norm group_norm instance_norm rms_norm",
    Op.THROUGH: "dropout dropout1d dropout2d dropout3d relu relu_ leaky_relu reshape view view_as "
    "permute transpose t mT swapaxes swapdims movedim contiguous flatten unflatten squeeze "
    "unsqueeze to type_as float half bfloat16 double clone expand roll __getitem__ chunk split pad "
    "cat stack",
}
_OPS = {name: op for op, names in _NAMES.items() for name in names.split()}


@dataclass(frozen=True, slots=True, eq=False)
class TracedTensor:
    """A tensor of a forward pass.

    Attributes:
        op: What made it.
        parents: The tensors that it was made of and that depend on an input.
        parameters: Names of the parameters that it was made of directly; of one that depends on no
            input, all of them.
        is_stream: Whether it is the block's first input.
        has_input: Whether it depends on an input.
    """

    op: Op = Op.OTHER
    parents: tuple[TracedTensor, ...] = ()
    parameters: frozenset[str] = frozenset()
    is_stream: bool = False
    has_input: bool = False


class _Trace(TorchFunctionMode):
    """Records which tensors functions make of which.

    Args:
        nodes: The known tensors by id: parameters, buffers and inputs, which have to stay alive.

    Attributes:
        has_gaps: Whether a tensor came from something that no mode sees, such as a custom function.
    """

    def __init__(self, nodes: dict[int, TracedTensor]) -> None:
        super().__init__()
        self.has_gaps = False
        self._nodes = nodes
        self._alive: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function, and record its results."""
        kwargs = kwargs or {}
        inner = opened(func)
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        used = [self.node(tensor) for tensor in tensors_in((args, kwargs))]
        name = getattr(func, "__name__", "")
        result = func(*(_with_sizes(args) if name in _RESHAPES else args), **kwargs)
        op = _OPS.get(name, Op.OTHER)
        parents = tuple(node for node in used if node.has_input)
        parameters = frozenset(p for node in used if not node.has_input for p in node.parameters)
        node = TracedTensor(op, parents, parameters, has_input=bool(parents))
        for tensor in tensors_in(result):
            self._nodes[id(tensor)] = node
            self._alive.append(tensor)
        if len(self._alive) > _MAX_FUNCTIONS:
            raise RuntimeError("the forward pass has too many functions")
        return result

    def node(self, tensor: Tensor) -> TracedTensor:
        """Return what is known of a tensor; a constant has no parents."""
        self.has_gaps |= id(tensor) not in self._nodes
        return self._nodes.get(id(tensor), TracedTensor())


def _with_sizes(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a reshape of an empty batch with a number for a size of -1."""
    tensor, *rest = args
    sizes = list(rest[0]) if rest and isinstance(rest[0], (tuple, list)) else rest
    if tensor.numel() or 0 not in sizes or -1 not in sizes:
        return args
    known = math.prod(size for size in tensor.shape if size)
    given = math.prod(size for size in sizes if size > 0)
    return (tensor, [known // given if size == -1 else size for size in sizes])


def traced_output(module: nn.Module, names: Mapping[int, str]) -> TracedTensor | None:
    """Return the first output of a module's forward pass.

    Args:
        module: The module.
        names: The names of trainable parameters, by their ids. All others are constants.

    Returns:
        The output; None: the module does not run on an empty batch of any likely shape, or calls
        functions that are not seen.
    """
    if type(module).forward is nn.Module.forward:  # it has none
        return None
    for shape in _likely_shapes(module):
        try:
            with _quietly():
                found = _traced(module, names, shape)
        except Exception:  # noqa: BLE001 - a forward pass may do anything with its input
            found = None
        if found is not None:
            return found
    return None


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what a forward pass may change beside the model: random numbers and warnings."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def _likely_shapes(module: nn.Module) -> list[tuple[int, ...]]:
    """Return shapes that an example of a module's input may have, the most likely first."""
    parts = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    shapes = [shape for part in parts[:_MAX_PARTS] for shape in _input_shapes(part)]
    return [*dict.fromkeys(shapes)]


def _input_shapes(part: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes that an example of the input of a module without submodules may have."""
    if isinstance(part, nn.modules.conv._ConvNd):  # noqa: SLF001 - the base of convolutions
        yield (part.in_channels, *[16] * len(part.kernel_size))
        return
    channels = getattr(part, "num_features", getattr(part, "num_channels", None))
    if isinstance(channels, int):
        yield (channels, 16, 16)
        yield (channels, 16)
    width = getattr(part, "in_features", getattr(part, "embed_dim", None))
    if not isinstance(width, int):
        width = next(part.parameters(recurse=False)).shape[-1:].numel()
    yield (4, width)
    yield (width,)
    yield (8, 8, width)


def _traced(
    module: nn.Module, names: Mapping[int, str], shape: tuple[int, ...]
) -> TracedTensor | None:
    """Return the output of a forward pass; None: not all functions were seen.

    Raises:
        Exception: The module cannot be copied, or does not run on such an input.
    """
    nodes: dict[int, TracedTensor] = {}
    clone = _Copy(names, nodes).of(module)
    dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    count = max(1, _required(module))
    inputs = [torch.empty((0, *shape), dtype=dtype, device="cpu") for _ in range(count)]
    for i, tensor in enumerate(inputs):
        nodes[id(tensor)] = TracedTensor(is_stream=i == 0, has_input=True)
    trace = _Trace(nodes)
    with trace:
        result = clone(*inputs)
    outputs = tensors_in(result)
    return trace.node(outputs[0]) if outputs and not trace.has_gaps else None


def _required(module: nn.Module) -> int:
    """Return how many arguments a module's forward pass needs."""
    parameters = inspect.signature(module.forward).parameters.values()
    return sum(
        1
        for p in parameters
        if p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
    )


class _Copy:
    """Copies modules: without values, without hooks, in evaluation mode.

    Args:
        names: Names of parameters by id.
        nodes: Filled with the copies of the parameters.
    """

    def __init__(self, names: Mapping[int, str], nodes: dict[int, TracedTensor]) -> None:
        self._names, self._nodes = names, nodes
        self._modules: dict[int, nn.Module] = {}
        self._tensors: dict[int, Tensor] = {}

    def of(self, module: nn.Module) -> nn.Module:
        """Return the copy of a module.

        Raises:
            TypeError: The module is compiled, scripted, sharded or patched.
        """
        if id(module) in self._modules:
            return self._modules[id(module)]
        if isinstance(module, torch.jit.ScriptModule) or "forward" in vars(module):
            raise TypeError(f"{type(module).__name__} is scripted or patched")
        clone: nn.Module = object.__new__(type(module))
        self._modules[id(module)] = clone
        state = {key: self._attribute(key, value) for key, value in vars(module).items()}
        state["_parameters"] = {k: self._tensor(p) for k, p in module._parameters.items()}  # noqa: SLF001
        state["_buffers"] = {k: self._tensor(b) for k, b in module._buffers.items()}  # noqa: SLF001
        state["_modules"] = {k: m and self.of(m) for k, m in module._modules.items()}  # noqa: SLF001
        vars(clone).update(state, training=False)
        return clone

    def _attribute(self, key: str, value: Any) -> Any:
        if key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
            return OrderedDict()
        if isinstance(value, Tensor):
            return self._tensor(value)
        return copy.copy(value) if isinstance(value, (list, dict, set)) else value

    def _tensor(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in self._tensors:
            if is_shard(tensor):
                raise TypeError("a tensor is sharded")
            made = torch.zeros((), dtype=tensor.dtype, device="cpu").expand(tensor.shape)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=False)
            name = self._names.get(id(tensor))  # frozen parameters are constants
            self._nodes[id(made)] = TracedTensor(parameters=frozenset([name] if name else []))
            self._tensors[id(tensor)] = made
        return self._tensors[id(tensor)]
