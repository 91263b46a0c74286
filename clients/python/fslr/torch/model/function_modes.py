"""Function modes under which a model's functions run slightly differently for a measurement."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def _opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy of a composite PyTorch function that does not dispatch to modes as a whole.

    Its body runs unchanged, and modes see the functions that it calls.
    """
    if not isinstance(function, FunctionType):
        return function
    known = {**function.__globals__, "has_torch_function": _always_false}
    copy = FunctionType(
        function.__code__, known, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _always_false(*_: Any) -> bool:
    return False


_OPENED: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.multi_head_attention_forward: _opened(functional.multi_head_attention_forward),
}


def opened(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a copy of a composite function whose inner calls are visible to modes, or None."""
    return _OPENED.get(function)


# The positional arguments of functions that modify the gradient of their weights, and the values of
# the options at which they do not.
_EMBEDDING = (
    ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
    {"padding_idx": None, "scale_grad_by_freq": False, "sparse": False},
)
_EMBEDDING_BAG = (
    (
        *("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode"),
        *("sparse", "per_sample_weights", "include_last_offset", "padding_idx"),
    ),
    {"scale_grad_by_freq": False, "sparse": False},
)
_GRADIENT_OPTIONS: dict[Callable[..., Any], tuple[tuple[str, ...], dict[str, Any]]] = {
    functional.embedding: _EMBEDDING,
    functional.embedding_bag: _EMBEDDING_BAG,
}


def without_gradient_options(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's arguments with which the function's gradient is its derivative.

    An embedding has options that modify its gradient: a padding row gets none, frequent rows get
    less. They change the training, but not the function that is measured.
    """
    known = _GRADIENT_OPTIONS.get(function)
    if known is None or len(args) > len(known[0]):
        return args, kwargs
    names, neutral = known
    return (
        tuple(neutral.get(name, value) for name, value in zip(names, args, strict=False)),
        {name: neutral.get(name, value) for name, value in kwargs.items()},
    )


class UnmodifiedGradients(TorchFunctionMode):
    """Ignores an embedding's options for its gradient, so that gradients are derivatives."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function without such options."""
        args, kwargs = without_gradient_options(func, args, kwargs or {})
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
_TRAIN = 6  # position of the argument of recurrent functions that enables dropout; its probability
# comes before it


def _is_active(
    _input: Any, p: float = 0.5, training: Any = True, *_: Any, train: Any = True, **__: Any
) -> bool:
    """Return whether a dropout function with these arguments has an effect."""
    return bool(p and training and train)


class WithoutDropout(TorchFunctionMode):
    """Disables dropout: of modules, of functions, and inside other functions.

    Attributes:
        has_disabled: Whether any dropout would have had an effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_disabled = False

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
            self.has_disabled |= _is_active(*args, **kwargs)
            return args[0] if args else kwargs["input"]
        if func is functional.scaled_dot_product_attention:
            self.has_disabled |= any([*args[4:5], kwargs.get("dropout_p", 0.0)])
            positional = [*args[:4], *([0.0] if len(args) > 4 else []), *args[5:]]
            return func(*positional, **{k: v for k, v in kwargs.items() if k != "dropout_p"})
        if func in _RECURRENT and len(args) > _TRAIN:
            self.has_disabled |= bool(args[_TRAIN] and args[_TRAIN - 1])
            return func(*args[:_TRAIN], False, *args[_TRAIN + 1 :], **kwargs)
        inner = opened(func)
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        return func(*args, **kwargs)
