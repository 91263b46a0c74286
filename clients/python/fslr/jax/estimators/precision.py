"""How large the rounding errors of outputs are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr

from fslr.jax.estimators.jaxprs import all_equations
from fslr.jax.estimators.mask import Weights

_PRODUCTS_PER_ROUNDING = 16.0  # as measured on transformers of 1 to 16 blocks in bfloat16
_FLOAT32_PRODUCTS = {"cpu": 2.0**-24, "gpu": 2.0**-11, "tpu": 2.0**-9}


def rounding_of(function: ClosedJaxpr, outputs: Array, weights: Weights) -> Array:
    """Return the expected sum of the squared rounding errors in a difference of two outputs.

    Rounding errors of a forward pass are about as large as one rounding of the outputs, and grow
    with the square root of the depth, for which the number of products stands.

    Args:
        function: The traced function.
        outputs: Its outputs.
        weights: The weights of their elements.
    """
    equations = list(all_equations(function.jaxpr))
    avals: list[Any] = [variable.aval for eqn in equations for variable in eqn.outvars]
    dtypes = {aval.dtype for aval in avals if hasattr(aval, "dtype")}
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    products = sum(eqn.primitive.name == "dot_general" for eqn in equations)
    roundoff = max((_roundoff(dtype) for dtype in floats), default=0.0)
    roundings = 1 + products / _PRODUCTS_PER_ROUNDING
    finite = jnp.where(jnp.isfinite(outputs), outputs, 0.0).astype(jnp.float32)
    square = jnp.sum(jnp.square(weights.weigh(finite)))
    return 2 * roundings * roundoff**2 * square


def _roundoff(dtype: Any) -> float:
    """Return the largest relative error of a rounded number; of a product for float32."""
    if dtype == jnp.float32:
        return _FLOAT32_PRODUCTS.get(jax.default_backend(), 2.0**-9)
    return float(jnp.finfo(dtype).eps) / 2  # type: ignore[no-untyped-call]
