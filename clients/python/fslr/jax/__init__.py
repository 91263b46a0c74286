"""JAX: record a profile, or train with an advisor's multipliers.

Parameters may be a plain pytree, those of Flax linen or nnx, or an Equinox module; optimizers are
those of optax. End the chain with :func:`scale_by_advice`::

    tx = optax.chain(optax.adamw(schedule), fslr.jax.scale_by_advice())
"""

from fslr.optional_dependencies import install_command

try:
    import jax  # noqa: F401 - only to say what is missing
    import optax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in {"jax", "optax"}:
        raise
    raise ImportError(f"fslr.jax needs JAX and optax: {install_command('jax')}") from error

from fslr.jax.advice_state import multipliers_of, with_multipliers
from fslr.jax.advice_transform import AdviceState, scale_by_advice

__all__ = [
    "AdviceState",
    "multipliers_of",
    "scale_by_advice",
    "with_multipliers",
]
