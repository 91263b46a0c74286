"""Local maps: how a function's result changes when one of its arguments changes.

A function that is linear in an argument maps a change of that argument to a change of its result
that depends only on the other arguments. The table in this module lists the functions through which
parameters act in a forward pass, the arguments in which each is linear, and how to apply the map.
The entries are independent of probes, rates and modules: a layer of ``torch.nn``, a Hugging Face
layer and a parameter used by hand all reduce to these functions.

Functions that only rearrange, cast or select (``W.t()``, ``W[expert]``, ``W.to(dtype)``) are linear
as well, so a change can be followed through them. So are Fourier transforms, and the functions
between real and complex numbers: linear means linear for real factors, so the conjugate counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Place = str | tuple[str, int]
"""The place of a tensor among a call's arguments: a name, or a name and a position in a list."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function, with its arguments by name.

    Attributes:
        function: The function that was called.
        names: The names of the arguments that were given positionally.
        arguments: All arguments by name.
    """

    function: Callable[..., Any]
    names: tuple[str, ...]
    arguments: dict[str, Any]

    def repeat(self, **changed: Any) -> Any:
        """Call the function again with some arguments replaced."""
        arguments = {**self.arguments, **changed}
        positional = [arguments.pop(name) for name in self.names]
        return self.function(*positional, **arguments)

    def with_change(self, place: Place, change: Tensor, **changed: Any) -> Any:
        """Call the function again with a tensor replaced by its change."""
        if isinstance(place, tuple):
            name, position = place
            items = list(self.arguments[name])
            items[position] = change
            return self.repeat(**{name: items}, **changed)
        return self.repeat(**{place: change}, **changed)


LocalMap = Callable[[Call, Place, Tensor], Any]
"""Maps (call, place of the changed tensor, its change) to the change of the result.

The change has the structure of the result, and its tensors may have any shape that broadcasts to
the shape in the result. ``NotImplemented`` means that the function is not linear in this argument.
"""


@dataclass(frozen=True, slots=True)
class LinearFunction:
    """A function that is linear in some of its arguments.

    Attributes:
        names: The names of its positional arguments, in order.
        local_map: Its local map.
    """

    names: tuple[str, ...]
    local_map: LocalMap

    def bind(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call | None:
        """Return a call with its arguments by name, or None if there are too many of them."""
        if len(args) > len(self.names):
            return None
        names = self.names[: len(args)]
        return Call(function, names, {**dict(zip(names, args, strict=True)), **kwargs})


def _product(*factors: str) -> LocalMap:
    """Return the map of a function that is linear in each factor separately."""

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        return call.with_change(place, change) if place in factors else NotImplemented

    return local_map


def _product_plus_bias(bias_dims_after: int | None, *factors: str) -> LocalMap:
    """Return the map of a function that is linear in each factor and adds a ``bias``.

    Args:
        bias_dims_after: Number of dimensions of the result after the bias's dimension; None: the
            number of spatial dimensions of a convolution, with or without a leading batch.
        factors: The factors' names.
    """

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        if place in factors:
            return call.with_change(place, change, bias=None)
        if place != "bias":
            return NotImplemented
        after = bias_dims_after
        if after is None:
            after = call.arguments["weight"].dim() - 2
        return change.reshape(-1, *[1] * after)

    return local_map


def _sum(sign_of_other: int = 1) -> LocalMap:
    """Return the map of ``input + alpha * other``, or of ``-`` with a sign of -1."""

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        if place == "input":
            return change
        alpha = sign_of_other * call.arguments.get("alpha", 1)
        return change if alpha == 1 else alpha * change

    return local_map


def _sum_in_place(sign_of_other: int = 1) -> LocalMap:
    """Return the map of ``input += alpha * other``, which cannot be followed through ``input``."""
    out_of_place = _sum(sign_of_other)

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        return NotImplemented if place == "input" else out_of_place(call, place, change)

    return local_map


def _rearrangement(call: Call, place: Place, change: Tensor) -> Any:
    return call.with_change(place, change) if place == "input" else NotImplemented


def _like_another(call: Call, place: Place, change: Tensor) -> Any:
    """Rearranges the first argument like the second."""
    return call.repeat(input=change) if place == "input" else NotImplemented


def _addmm(call: Call, place: Place, change: Tensor) -> Any:
    alpha, beta = call.arguments.get("alpha", 1), call.arguments.get("beta", 1)
    if place == "input":
        return change if beta == 1 else beta * change
    mat1 = change if place == "mat1" else call.arguments["mat1"]
    mat2 = change if place == "mat2" else call.arguments["mat2"]
    product = torch.matmul(mat1, mat2)
    return product if alpha == 1 else alpha * product


def _embedding(call: Call, place: Place, change: Tensor) -> Any:
    if place != "weight":
        return NotImplemented
    return functional.embedding(call.arguments["input"], change)


def _normalization(normalized: Callable[[Call], Tensor], channel_dim: int | None) -> LocalMap:
    """Return the map of ``normalized * weight + bias``.

    Args:
        normalized: Repeats a call without weight and bias.
        channel_dim: The dimension of weight and bias; None: the trailing dimensions.
    """

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        if place not in {"weight", "bias"}:
            return NotImplemented
        if channel_dim is not None:
            after = call.arguments["input"].dim() - channel_dim - 1
            change = change.reshape(-1, *[1] * after)
        return change if place == "bias" else normalized(call) * change

    return local_map


def _without_weights(call: Call, **changed: Any) -> Tensor:
    absent = {name: None for name in ("weight", "bias") if name in call.arguments}
    result: Tensor = call.repeat(**absent, **changed)
    return result


def _batch_normalized(call: Call) -> Tensor:
    # The call may update the running statistics, so it gets copies.
    copies = {
        name: None if call.arguments.get(name) is None else call.arguments[name].clone()
        for name in ("running_mean", "running_var")
    }
    return _without_weights(call, **copies)


def _prelu(call: Call, place: Place, change: Tensor) -> Any:
    if place != "weight":
        return NotImplemented
    inputs: Tensor = call.arguments["input"]
    if inputs.dim() > 1:
        change = change.reshape(-1, *[1] * (inputs.dim() - 2))
    return inputs.clamp(max=0) * change


def _einsum(call: Call, place: Place, change: Tensor) -> Any:
    return call.with_change(place, change) if str(place).startswith("operand") else NotImplemented


def _where(call: Call, place: Place, change: Tensor) -> Any:
    """Selects the change where its argument is selected, and zero elsewhere."""
    zero = torch.zeros((), dtype=change.dtype, device=change.device)
    if place == "input":
        return torch.where(call.arguments["condition"], change, zero)
    return torch.where(call.arguments["condition"], zero, change)


def _masked_fill(call: Call, place: Place, change: Tensor) -> Any:
    return change.masked_fill(call.arguments["mask"], 0.0) if place == "input" else NotImplemented


def _concatenation(call: Call, place: Place, change: Tensor) -> Any:
    """Concatenates the change with zeros in place of the other tensors."""
    tensors = call.arguments["tensors"]
    items = [
        change if place == ("tensors", i) else torch.zeros_like(tensor)
        for i, tensor in enumerate(tensors)
    ]
    return call.repeat(tensors=items)


def _complex(_call: Call, place: Place, change: Tensor) -> Any:
    """Return the complex number whose other part is zero."""
    zero = torch.zeros_like(change)
    return torch.complex(change, zero) if place == "real" else torch.complex(zero, change)


_TABLE: dict[Callable[..., Any], LinearFunction] = {}


def _register(functions: Iterable[Callable[..., Any]], names: str, local_map: LocalMap) -> None:
    entry = LinearFunction(tuple(names.split()), local_map)
    _TABLE.update(dict.fromkeys(functions, entry))


_T = torch.Tensor

_register([functional.linear], "input weight bias", _product_plus_bias(0, "input", "weight"))
_register(
    [functional.bilinear],
    "input1 input2 weight bias",
    _product_plus_bias(0, "input1", "input2", "weight"),
)
_register(
    [functional.conv1d, functional.conv2d, functional.conv3d],
    "input weight bias stride padding dilation groups",
    _product_plus_bias(None, "input", "weight"),
)
_register(
    [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d],
    "input weight bias stride padding output_padding groups dilation",
    _product_plus_bias(None, "input", "weight"),
)
_register(
    [functional.embedding],
    "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
    _embedding,
)
_register(
    [functional.embedding_bag],
    "input weight offsets max_norm norm_type scale_grad_by_freq mode sparse per_sample_weights "
    "include_last_offset padding_idx",
    _product("weight"),
)
_register(
    [functional.layer_norm],
    "input normalized_shape weight bias eps",
    _normalization(_without_weights, None),
)
_register(
    [functional.rms_norm],
    "input normalized_shape weight eps",
    _normalization(_without_weights, None),
)
_register(
    [functional.group_norm],
    "input num_groups weight bias eps",
    _normalization(_without_weights, 1),
)
_register(
    [functional.instance_norm],
    "input running_mean running_var weight bias use_input_stats momentum eps",
    _normalization(_batch_normalized, 1),
)
_register(
    [functional.batch_norm],
    "input running_mean running_var weight bias training momentum eps",
    _normalization(_batch_normalized, 1),
)
_register([functional.prelu], "input weight", _prelu)
_register([torch.addmm, _T.addmm, torch.baddbmm, _T.baddbmm], "input mat1 mat2", _addmm)
_register(
    [torch.mul, torch.multiply, _T.mul, _T.multiply, torch.matmul, _T.matmul, torch.mm, _T.mm,
     torch.bmm, _T.bmm, torch.mv, _T.mv],
    "input other",
    _product("input", "other"),
)  # fmt: skip
_register([torch.div, torch.true_divide, _T.div, _T.true_divide], "input other", _product("input"))
_register([torch.einsum], "equation operand0 operand1 operand2 operand3", _einsum)
_register([torch.add, _T.add], "input other", _sum())
_register([torch.sub, _T.sub], "input other", _sum(-1))
_register([_T.add_], "input other", _sum_in_place())
_register([_T.sub_], "input other", _sum_in_place(-1))
_REARRANGING = (
    "t", "transpose", "permute", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten",
    "chunk", "split", "unbind", "select", "narrow", "clone", "neg", "movedim", "swapaxes",
    "repeat_interleave", "index_select", "sum", "mean", "roll", "flip", "tril", "triu",
    "diag_embed", "broadcast_to", "tile", "hsplit", "vsplit", "tensor_split",
)  # fmt: skip
_REARRANGING_METHODS = (
    "view", "expand", "repeat", "contiguous", "to", "float", "half", "bfloat16", "double",
    "type", "cfloat", "cdouble", "__getitem__",
)  # fmt: skip
_REARRANGING_ATTRIBUTES = "T", "mT", "H", "mH", "real", "imag"
_COMPLEX = (
    "view_as_complex", "view_as_real", "real", "imag", "conj", "conj_physical", "resolve_conj",
    "resolve_neg", "adjoint",
)  # fmt: skip
_FOURIER = (
    "fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifft2", "rfft2", "irfft2", "fftn",
    "ifftn", "rfftn", "irfftn", "fftshift", "ifftshift",
)  # fmt: skip
_register(
    [
        getattr(owner, name)
        for owner in (torch, _T)
        for name in (*_REARRANGING, *_COMPLEX)
        if callable(getattr(owner, name, None))
    ]
    + [getattr(_T, name) for name in _REARRANGING_METHODS]
    + [getattr(_T, name).__get__ for name in _REARRANGING_ATTRIBUTES]
    + [getattr(torch.fft, name) for name in _FOURIER],
    "input argument1 argument2 argument3 argument4 argument5 argument6",
    _rearrangement,
)
_register([torch.complex], "real imag", _complex)
_register([torch.cat, torch.concat, torch.concatenate, torch.stack], "tensors dim", _concatenation)
_register([torch.where], "condition input other", _where)
_register([_T.where], "input condition other", _where)
_register([torch.masked_fill, _T.masked_fill], "input mask value", _masked_fill)
_register([_T.view_as, _T.expand_as, _T.reshape_as, _T.type_as], "input other", _like_another)


def linear_function(function: Callable[..., Any]) -> LinearFunction | None:
    """Return the entry of a function that is linear in some arguments, or None."""
    return _TABLE.get(function)
