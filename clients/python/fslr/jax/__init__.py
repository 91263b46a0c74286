"""JAX: record a profile, or train with an advisor's multipliers.

Parameters may be a plain pytree, those of Flax linen or nnx, or an Equinox module; optimizers are
those of optax.

Record the base model::

    recorder = fslr.jax.Recorder(apply_fn, params, opt_state, learning_rate=schedule)
    train_step = recorder.wrap(train_step)
    ...  # the training loop
    content = recorder.profile(fslr.Provenance("char GPT", width=32))

Train the big model::

    tx = optax.chain(optax.adamw(schedule), fslr.jax.scale_by_advice())
    attachment = fslr.jax.attach(
        apply_fn, params, opt_state, learning_rate=schedule, profile="char-gpt@prod"
    )
    train_step = attachment.wrap(train_step)
    ...  # the training loop
    attachment.close()
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
from fslr.jax.attachment import Attachment, attach
from fslr.jax.groups import ModelGroups, ParameterGroup
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.recipe import ParameterRecipe, recipe_for
from fslr.jax.recorder import Recorder

__all__ = [
    "AdviceState",
    "Attachment",
    "MeasuringOptions",
    "ModelGroups",
    "ParameterGroup",
    "ParameterRecipe",
    "Recorder",
    "attach",
    "multipliers_of",
    "recipe_for",
    "scale_by_advice",
    "with_multipliers",
]
