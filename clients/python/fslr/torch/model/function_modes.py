"""Small modes under which a model's functions run a little differently, for a measurement."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fslr.torch.estimators.per_example.local_maps import as_measured


def _opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a composite function of PyTorch's that does not hand itself over to modes as a whole.

    Its body is run as it is; the functions that it calls are seen one by one.
    """
    if not isinstance(function, FunctionType):
        return function
    known = {**function.__globals__, "has_torch_function": _no}
    copy = FunctionType(
        function.__code__, known, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _no(*_: Any) -> bool:
    return False


_OPENED: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.multi_head_attention_forward: _opened(functional.multi_head_attention_forward),
}


def opened(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a copy of a composite function whose inner calls modes see, or None."""
    return _OPENED.get(function)


class GradientsAsMeasured(TorchFunctionMode):
    """Sets aside an embedding's options for its gradient, so that gradients are derivatives."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function without such options."""
        args, kwargs = as_measured(func, args, kwargs or {})
        return func(*args, **kwargs)


_DROPOUTS = {
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    torch.dropout,
}
_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
_TRAIN = 6  # position of the recurrent functions' flag that lets them drop


class WithoutDropout(TorchFunctionMode):
    """Drops nothing, whether dropout is a module, a function, or inside another function."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function without dropout."""
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is functional.scaled_dot_product_attention:
            positional = [*args[:4], *([0.0] if len(args) > 4 else []), *args[5:]]
            return func(*positional, **{k: v for k, v in kwargs.items() if k != "dropout_p"})
        if func in _RECURRENT and len(args) > _TRAIN:
            return func(*args[:_TRAIN], False, *args[_TRAIN + 1 :], **kwargs)
        inside = opened(func)
        if inside is not None:
            with self:
                return inside(*args, **kwargs)
        return func(*args, **kwargs)
