"""Weights of output elements: which elements of the outputs count, and how much.

With weights ``w`` the rate is ``sqrt(sum(w * change^2) / sum(w))``. If each entry of a probe is
multiplied by ``sqrt(w)``, the squared projection of a change has the mean ``sum(w * change^2)``, so
no estimator has to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fslr.errors import MeasurementError

Mask = Callable[[Any, Array], Any] | str | None
"""Weighs output elements: a key of the batch, or a function of the batch and the outputs."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of the elements of the outputs.

    Attributes:
        weights: float32, of a shape that broadcasts to that of the outputs; None: all are 1.
        total: The sum of the weights over all output elements; NaN if one is not finite or below 0.
    """

    weights: Array | None
    total: Array

    def moved(self, axis: int) -> Weights:
        """Return the weights of outputs of which an axis was moved to the front.

        Args:
            axis: The axis.
        """
        if self.weights is None:
            return self
        return Weights(jnp.moveaxis(self.weights, axis, 0), self.total)

    def weigh(self, probe: Array) -> Array:
        """Multiply a probe by the square roots of the weights."""
        return probe if self.weights is None else probe * jnp.sqrt(self.weights)

    def clear(self, change: Array) -> Array:
        """Set a change to 0 where nothing counts, even if it is not finite there."""
        return change if self.weights is None else jnp.where(self.weights > 0, change, 0.0)


def weights_of(mask: Mask, batch: Any, outputs: Array) -> Weights:
    """Return the weights of the elements of the outputs.

    Args:
        mask: The mask; None: all elements count the same.
        batch: The batch.
        outputs: The outputs.

    Raises:
        MeasurementError: The batch does not have the key, or the mask is not an array of real
            numbers whose shape broadcasts to the leading dimensions of the outputs.
    """
    if mask is None:
        return Weights(None, jnp.float32(outputs.size))
    found = _lookup(mask, batch) if isinstance(mask, str) else mask(batch, outputs)
    if found is None:
        return Weights(None, jnp.float32(outputs.size))
    name = repr(mask) if isinstance(mask, str) else getattr(mask, "__qualname__", repr(mask))
    shape = jnp.shape(found)
    fits = len(shape) <= outputs.ndim and all(
        size in {1, whole} for size, whole in zip(shape, outputs.shape, strict=False)
    )
    dtype = jnp.result_type(found)
    if not fits or jnp.issubdtype(dtype, jnp.complexfloating):
        raise MeasurementError(
            f"the mask {name} has shape {shape} and type {dtype}, and the outputs have shape "
            f"{outputs.shape}; weights must be real numbers whose shape broadcasts to the leading "
            "dimensions of the outputs, such as (B, T) for (B, T, V)"
        )
    weights = jax.lax.stop_gradient(jnp.asarray(found, jnp.float32))
    repeats = outputs.size // max(1, weights.size)
    is_valid = jnp.all(weights >= 0) & jnp.all(jnp.isfinite(weights))
    total = jnp.where(is_valid, jnp.sum(weights) * repeats, jnp.nan)
    weights = weights.reshape(*shape, *[1] * (outputs.ndim - len(shape)))
    return Weights(weights, total)


def _lookup(key: str, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        if key in batch:
            return batch[key]
        keys = f"its keys are {', '.join(map(repr, batch))}"
    else:
        keys = f"it is a {type(batch).__name__}"
    raise MeasurementError(
        f"mask={key!r} does not exist in the batch; {keys}. Use a function of (batch, outputs)"
    )
