"""How models of each framework hold their parameters.

A model is split into *parameters*, the floating arrays that are trained; *other arrays*, such as
running statistics and keys; and what is no array. It may be a plain pytree of parameters (of Flax
linen, Haiku or none), an Equinox module, or a module of Flax nnx, whose training changes it in
place. None of these packages is imported unless the model belongs to it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fslr.errors import AttachError
from fslr.jax.names import name_of


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A model in parts.

    Attributes:
        params: The parameters, a pytree of floating arrays.
        arrays: A pytree of other arrays.
        static: What is no array; equal for models with the same structure and settings.
    """

    params: Any
    arrays: Any
    static: Any


@dataclass(frozen=True, slots=True)
class ModelForm:
    """How a framework's models are taken apart and put together.

    Attributes:
        framework: Its name.
        split: Takes a model apart; nothing is copied.
        merge: Returns a model of the parts, which may be traced.
        with_params: Returns a model with other parameters. It is the same object if the framework's
            trainings change models in place.
    """

    framework: str
    split: Callable[[Any], SplitModel]
    merge: Callable[[SplitModel], Any]
    with_params: Callable[[Any, Any], Any]


def form_of(model: Any) -> ModelForm:
    """Return the form of a model.

    Args:
        model: A module, or a pytree of parameters.

    Raises:
        AttachError: It is a module of Flax linen, which holds no parameters.
    """
    nnx, equinox = sys.modules.get("flax.nnx"), sys.modules.get("equinox")
    linen = sys.modules.get("flax.linen")
    if nnx is not None and isinstance(model, nnx.Module):
        return _nnx_form(nnx)
    if equinox is not None and isinstance(model, equinox.Module):
        return _equinox_form(equinox)
    if linen is not None and isinstance(model, linen.Module):
        raise AttachError(
            f"{type(model).__name__} is a module of Flax linen, which holds no parameters; pass "
            "those that module.init returned, and module.apply as the function"
        )
    return _PYTREE


_PYTREE = ModelForm(
    "a pytree",
    split=lambda params: SplitModel(params, (), None),
    merge=lambda parts: parts.params,
    with_params=lambda _, params: params,
)


def _equinox_form(equinox: Any) -> ModelForm:
    def split(model: Any) -> SplitModel:
        params, rest = equinox.partition(model, equinox.is_inexact_array)
        arrays, static = equinox.partition(rest, equinox.is_array)
        return SplitModel(params, arrays, static)

    def merge(parts: SplitModel) -> Any:
        return equinox.combine(parts.params, parts.arrays, parts.static)

    def with_params(model: Any, params: Any) -> Any:
        _, rest = equinox.partition(model, equinox.is_inexact_array)
        return equinox.combine(params, rest)

    return ModelForm("Equinox", split, merge, with_params)


def _nnx_form(nnx: Any) -> ModelForm:
    def split(model: Any) -> SplitModel:
        static, params, arrays = nnx.split(model, nnx.Param, ...)
        return SplitModel(params, arrays, static)

    def merge(parts: SplitModel) -> Any:
        return nnx.merge(parts.static, parts.params, parts.arrays)

    def with_params(model: Any, params: Any) -> Any:
        nnx.update(model, params)
        return model

    return ModelForm("Flax nnx", split, merge, with_params)


def check_params(params: Any) -> None:
    """Refuse parameters that cannot be trained.

    Args:
        params: A pytree.

    Raises:
        AttachError: It has no leaf, or a leaf that is not an array of real floating-point numbers.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if not leaves:
        raise AttachError(
            f"the parameters ({type(params).__name__}) have no arrays; pass the pytree that the "
            "optimizer was initialized with"
        )
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not hasattr(leaf, "shape"):
            raise AttachError(
                f"the parameter {name_of(path)} is {_words(leaf)}; it must be an array of "
                "floating-point numbers. Pass only what is trained, such as "
                "variables['params'] of Flax linen"
            )
        if not jnp.issubdtype(dtype, jnp.floating):
            raise AttachError(
                f"the parameter {name_of(path)} has the type {dtype}; only floating-point numbers "
                "are trained. Pass only what is trained, and the rest with the batch"
            )


def _words(leaf: object) -> str:
    text = repr(leaf)
    return f"{text if len(text) < 40 else 'a value'} of type {type(leaf).__name__}"


def changes_in_place(model: Any) -> bool:
    """Return whether trainings change a model in place: one of Flax nnx."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(model, nnx.Module)


def state_of(optimizer: Any) -> Any:
    """Return the state of an optimizer of optax.

    Args:
        optimizer: The state itself, or an ``nnx.Optimizer``.
    """
    return optimizer.opt_state if _is_nnx_optimizer(optimizer) else optimizer


def with_state(optimizer: Any, state: Any) -> Any:
    """Return an optimizer with another state; an ``nnx.Optimizer`` is changed in place.

    Args:
        optimizer: The state before, or an ``nnx.Optimizer``.
        state: The state.
    """
    if not _is_nnx_optimizer(optimizer):
        return state
    nnx = sys.modules["flax.nnx"]
    nnx.update(optimizer.opt_state, nnx.state(state))
    return optimizer


def _is_nnx_optimizer(optimizer: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(optimizer, nnx.Optimizer)
