"""Local maps: what a function's result would change by if one of its arguments changed.

A function that is linear in an argument maps a change of that argument to a change of its result
that depends on the other arguments alone. The table below says, for the functions through which
parameters act in a forward pass, in which arguments each is linear and how to apply the map. A rule
knows nothing of probes, rates or modules: a layer of ``torch.nn``, a Hugging Face layer and a
parameter used by hand all come down to these functions.

Functions that only rearrange, cast or select (``W.t()``, ``W[expert]``, ``W.to(dtype)``) are linear
too, so a change can be followed through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Place = str | tuple[str, int]
"""Where a tensor stands among a call's arguments: by name, or by name and position in a list."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function, its arguments bound to names.

    Attributes:
        function: What was called.
        names: Names of the positional arguments, as many as were given.
        arguments: All arguments by name.
    """

    function: Callable[..., Any]
    names: tuple[str, ...]
    arguments: dict[str, Any]

    def repeat(self, **changed: Any) -> Any:
        """Call the function again with some arguments exchanged."""
        arguments = {**self.arguments, **changed}
        positional = [arguments.pop(name) for name in self.names]
        return self.function(*positional, **arguments)

    def with_change(self, place: Place, change: Tensor, **changed: Any) -> Any:
        """Call the function again with a change in the place of a tensor."""
        if isinstance(place, tuple):
            name, position = place
            items = list(self.arguments[name])
            items[position] = change
            return self.repeat(**{name: items}, **changed)
        return self.repeat(**{place: change}, **changed)


LocalMap = Callable[[Call, Place, Tensor], Any]
"""Maps (call, place of the changed tensor, its change) to the result's change.

The result's change has the structure of the result; a tensor may be of any shape that broadcasts to
the result's. ``NotImplemented`` says that the function is not linear in this argument.
"""


@dataclass(frozen=True, slots=True)
class LinearFunction:
    """A function that is linear in some of its arguments.

    Attributes:
        names: Names of its positional arguments, in order.
        local_map: Its local map.
    """

    names: tuple[str, ...]
    local_map: LocalMap

    def bind(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call | None:
        """Return a call with its arguments bound to names, or None if there are too many."""
        if len(args) > len(self.names):
            return None
        names = self.names[: len(args)]
        return Call(function, names, {**dict(zip(names, args, strict=True)), **kwargs})


def _product(*factors: str) -> LocalMap:
    """Linear in each factor on its own."""

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        return call.with_change(place, change) if place in factors else NotImplemented

    return local_map


def _product_plus_bias(bias_dims_after: int | None, *factors: str) -> LocalMap:
    """Linear in each factor, with a ``bias`` along one dimension of the result on top.

    Args:
        bias_dims_after: Dimensions of the result after the bias's; None: as many as the input has
            after its channels (convolutions with and without a leading batch).
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
    """``input + alpha * other``, or minus."""

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        if place == "input":
            return change
        alpha = sign_of_other * call.arguments.get("alpha", 1)
        return change if alpha == 1 else alpha * change

    return local_map


def _sum_in_place(sign_of_other: int = 1) -> LocalMap:
    """``input += alpha * other``; what ``input`` held before is gone, so only ``other`` counts."""
    out_of_place = _sum(sign_of_other)

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        return NotImplemented if place == "input" else out_of_place(call, place, change)

    return local_map


def _rearrangement(call: Call, place: Place, change: Tensor) -> Any:
    return call.with_change(place, change) if place == "input" else NotImplemented


def _like_another(call: Call, place: Place, change: Tensor) -> Any:
    """Rearranges its first argument in the manner of the second."""
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


def _normalized(name_of_call: Callable[[Call], Tensor], channel_dim: int | None) -> LocalMap:
    """``normalized * weight + bias``, with weight and bias along the trailing or channel dims."""

    def local_map(call: Call, place: Place, change: Tensor) -> Any:
        if place not in {"weight", "bias"}:
            return NotImplemented
        if channel_dim is not None:
            after = call.arguments["input"].dim() - channel_dim - 1
            change = change.reshape(-1, *[1] * after)
        return change if place == "bias" else name_of_call(call) * change

    return local_map


def _without_weights(call: Call, **changed: Any) -> Tensor:
    absent = {name: None for name in ("weight", "bias") if name in call.arguments}
    result: Tensor = call.repeat(**absent, **changed)
    return result


def _batch_normalized(call: Call) -> Tensor:
    # The running statistics are used, and must not be moved a second time.
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
    """Takes the change where its argument is chosen, and zero elsewhere."""
    zero = torch.zeros((), dtype=change.dtype, device=change.device)
    if place == "input":
        return torch.where(call.arguments["condition"], change, zero)
    return torch.where(call.arguments["condition"], zero, change)


def _masked_fill(call: Call, place: Place, change: Tensor) -> Any:
    return change.masked_fill(call.arguments["mask"], 0.0) if place == "input" else NotImplemented


def _joined(call: Call, place: Place, change: Tensor) -> Any:
    """Joins the change with zeros in the places of all other tensors."""
    tensors = call.arguments["tensors"]
    items = [
        change if place == ("tensors", i) else torch.zeros_like(tensor)
        for i, tensor in enumerate(tensors)
    ]
    return call.repeat(tensors=items)


_TABLE: dict[Callable[..., Any], LinearFunction] = {}


def _enter(functions: Iterable[Callable[..., Any]], names: str, local_map: LocalMap) -> None:
    entry = LinearFunction(tuple(names.split()), local_map)
    _TABLE.update(dict.fromkeys(functions, entry))


_T = torch.Tensor

_enter([functional.linear], "input weight bias", _product_plus_bias(0, "input", "weight"))
_enter(
    [functional.bilinear],
    "input1 input2 weight bias",
    _product_plus_bias(0, "input1", "input2", "weight"),
)
_enter(
    [functional.conv1d, functional.conv2d, functional.conv3d],
    "input weight bias stride padding dilation groups",
    _product_plus_bias(None, "input", "weight"),
)
_enter(
    [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d],
    "input weight bias stride padding output_padding groups dilation",
    _product_plus_bias(None, "input", "weight"),
)
_enter(
    [functional.embedding],
    "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
    _embedding,
)
_enter(
    [functional.embedding_bag],
    "input weight offsets max_norm norm_type scale_grad_by_freq mode sparse per_sample_weights "
    "include_last_offset padding_idx",
    _product("weight"),
)
_enter(
    [functional.layer_norm],
    "input normalized_shape weight bias eps",
    _normalized(_without_weights, None),
)
_enter(
    [functional.rms_norm], "input normalized_shape weight eps", _normalized(_without_weights, None)
)
_enter(
    [functional.group_norm],
    "input num_groups weight bias eps",
    _normalized(_without_weights, 1),
)
_enter(
    [functional.instance_norm],
    "input running_mean running_var weight bias use_input_stats momentum eps",
    _normalized(_batch_normalized, 1),
)
_enter(
    [functional.batch_norm],
    "input running_mean running_var weight bias training momentum eps",
    _normalized(_batch_normalized, 1),
)
_enter([functional.prelu], "input weight", _prelu)
_enter([torch.addmm, _T.addmm, torch.baddbmm, _T.baddbmm], "input mat1 mat2", _addmm)
_enter(
    [torch.mul, torch.multiply, _T.mul, _T.multiply, torch.matmul, _T.matmul, torch.mm, _T.mm,
     torch.bmm, _T.bmm, torch.mv, _T.mv],
    "input other",
    _product("input", "other"),
)  # fmt: skip
_enter([torch.div, torch.true_divide, _T.div, _T.true_divide], "input other", _product("input"))
_enter([torch.einsum], "equation operand0 operand1 operand2 operand3", _einsum)
_enter([torch.add, _T.add], "input other", _sum())
_enter([torch.sub, _T.sub], "input other", _sum(-1))
_enter([_T.add_], "input other", _sum_in_place())
_enter([_T.sub_], "input other", _sum_in_place(-1))
_REARRANGING = (
    "t", "transpose", "permute", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten",
    "chunk", "split", "unbind", "select", "narrow", "clone", "neg", "movedim", "swapaxes",
    "repeat_interleave", "index_select", "sum", "mean", "roll", "flip", "tril", "triu",
    "diag_embed", "broadcast_to", "tile", "hsplit", "vsplit", "tensor_split",
)  # fmt: skip
_REARRANGING_METHODS = (
    "view", "expand", "repeat", "contiguous", "to", "float", "half", "bfloat16", "double",
    "type", "__getitem__",
)  # fmt: skip
_enter(
    [getattr(owner, name) for owner in (torch, _T) for name in _REARRANGING if hasattr(owner, name)]
    + [getattr(_T, name) for name in _REARRANGING_METHODS]
    + [_T.T.__get__, _T.mT.__get__],  # type: ignore[attr-defined]
    "input argument1 argument2 argument3 argument4 argument5 argument6",
    _rearrangement,
)
_enter([torch.cat, torch.concat, torch.concatenate, torch.stack], "tensors dim", _joined)
_enter([torch.where], "condition input other", _where)
_enter([_T.where], "input condition other", _where)
_enter([torch.masked_fill, _T.masked_fill], "input mask value", _masked_fill)
_enter([_T.view_as, _T.expand_as, _T.reshape_as, _T.type_as], "input other", _like_another)


def linear_function(function: Callable[..., Any]) -> LinearFunction | None:
    """Return what is known of a function's linearity, or None."""
    return _TABLE.get(function)


def as_measured(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with which a function's derivative is that of its result.

    An embedding's options for its gradient (a padding row gets none, frequent rows less) change
    what training does with it, but not what it puts out, and that is measured.
    """
    if function not in {functional.embedding, functional.embedding_bag}:
        return args, kwargs
    call = _TABLE[function].bind(function, args, kwargs)
    if call is None:
        return args, kwargs
    options: dict[str, Any] = {"scale_grad_by_freq": False, "sparse": False}
    if function is functional.embedding:
        options["padding_idx"] = None
    arguments = {**call.arguments, **{k: v for k, v in options.items() if k in call.arguments}}
    return tuple(arguments.pop(name) for name in call.names), arguments
