"""Recipes in JAX: scaled parameters, an optimizer with factors, multipliers to start with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import fslr.jax
from fslr import AttachError
from fslr.jax.model_forms import form_of
from fslr.training.events import Event, Warned
from fslr.training.setting_factors import SettingFactors
from tests.recipe_advisor import RecipeAdvisor
from tests.unit.jax.nets import mlp, mlp_params, train_step_of

RATE, EPSILON, DECAY = 0.01, 1e-3, 0.1
WIDTH = 4  # times the base's


@pytest.fixture
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def params_of(width: int, seed: int = 0) -> Any:
    params = mlp_params((3, width, width, 2), seed)
    return jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf, float) + 0.01), params)


def advisor_of(recipe: str = "") -> RecipeAdvisor:
    base = params_of(8, seed=1)
    return RecipeAdvisor(fslr.jax.ModelGroups(base, form_of(base)).layout(base), recipe)


def rms(leaf: jax.Array) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(leaf)))))


def adamw(factors: SettingFactors) -> optax.GradientTransformation:
    return optax.adamw(
        RATE, eps=EPSILON * factors.epsilon, weight_decay=DECAY * factors.weight_decay
    )


INPUTS = np.random.default_rng(3).standard_normal((16, 3))
TARGETS = 3 * INPUTS[:, :2]
STEPS = 10


def train_in_pytorch(params: Any, groups: dict[str, dict[str, float]]) -> Any:
    """Train with the readout's multiplier in the model's code, and return the parameters.

    Args:
        params: The parameters.
        groups: Options of AdamW by the beginning of a tensor's name; the first that fits counts.
    """
    tensors = {
        f"{layer}.{name}": torch.tensor(np.asarray(leaf), requires_grad=True)
        for layer, leaves in params.items()
        for name, leaf in leaves.items()
    }
    optimizer = torch.optim.AdamW([
        {
            "params": [tensor],
            "lr": RATE,
            "eps": EPSILON,
            "weight_decay": DECAY,
            **next((o for start, o in groups.items() if name.startswith(start)), {}),
        }
        for name, tensor in tensors.items()
    ])
    targets = torch.tensor(TARGETS)
    for _ in range(STEPS):
        outputs = torch.tensor(INPUTS)
        for layer in range(3):
            weight, bias = tensors[f"Dense_{layer}.kernel"], tensors[f"Dense_{layer}.bias"]
            outputs = outputs @ weight + bias
            outputs = torch.tanh(outputs) if layer < 2 else outputs / WIDTH
        optimizer.zero_grad()
        (outputs - targets).square().mean().backward()
        optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.usefixtures("_float64")
def test_trajectories_equal_those_of_a_model_with_the_factors_in_its_code() -> None:
    """The reference is PyTorch, with muP's output multiplier and learning rates by hand."""
    params, advisor = params_of(8 * WIDTH), advisor_of()
    recipe = fslr.jax.recipe_for(
        params, profile="x", advisor=advisor, recipe="mup-adam", optimizer="adamw"
    )
    assert recipe.settings["Dense_2.kernel"] == SettingFactors(1 / WIDTH, WIDTH, WIDTH)
    params = recipe.initialize(params)
    base = params_of(8, seed=1)
    for name, factor in (("Dense_0", 1.0), ("Dense_1", WIDTH**-0.5), ("Dense_2", 1 / WIDTH)):
        wanted = rms(base[name]["kernel"]) * factor
        assert rms(params[name]["kernel"]) == pytest.approx(wanted)
    tx = optax.chain(recipe.partition(adamw), fslr.jax.scale_by_advice())
    # An attachment does this before the first step; see the test below.
    rates = {name: factors.learning_rate for name, factors in recipe.settings.items()}
    state = fslr.jax.with_multipliers(tx.init(params), rates)
    train_step, start, ours = train_step_of(tx), params, params
    for _ in range(STEPS):
        ours, state, _ = train_step(ours, state, (INPUTS, TARGETS))

    # With the multiplier in the code, the readout's weights are WIDTH times as large.
    readout = {name: np.asarray(leaf) * WIDTH for name, leaf in start["Dense_2"].items()}
    theirs = train_in_pytorch(
        {**start, "Dense_2": readout},
        {
            "Dense_1.kernel": {"lr": RATE / WIDTH, "weight_decay": DECAY * WIDTH},
            # The recipe gives the readout's bias no multiplier.
            "Dense_2.bias": {
                "lr": RATE * WIDTH,
                "eps": EPSILON / WIDTH,
                "weight_decay": DECAY / WIDTH,
            },
        },
    )
    for name, other in theirs.items():
        layer, tensor = name.split(".")
        mine, before = np.asarray(ours[layer][tensor]), np.asarray(start[layer][tensor])
        expected = other / WIDTH if layer == "Dense_2" else other
        moved = np.max(np.abs(mine - before))
        assert np.max(np.abs(mine - expected)) < 1e-9 * moved, name


def test_an_optimizer_without_the_factors_and_other_weights_are_named() -> None:
    params = jax.tree.map(lambda leaf: jnp.asarray(3 * np.asarray(leaf)), params_of(8 * WIDTH))
    tx = optax.chain(adamw(SettingFactors()), fslr.jax.scale_by_advice())
    events: list[Event] = []
    opt_state = tx.init(params)
    attachment = fslr.jax.attach(
        lambda params, batch: mlp(params, batch[0]),
        *(params, opt_state),
        profile="x",
        advisor=advisor_of("mup-adam"),
        learning_rate=RATE,
        listeners=[events.append],
    )
    messages = [event.message for event in events if isinstance(event, Warned)]
    assert any("build it with fslr.jax.recipe_for(...).partition(...)" in m for m in messages)
    assert any(
        m.endswith(
            "scale them with fslr.jax.recipe_for(...).initialize(params) before the first step"
        )
        for m in messages
    )
    assert attachment.by_name()["Dense_2.kernel"].multiplier == 1 / WIDTH
    in_force = fslr.jax.multipliers_of(attachment.before_step(params, opt_state))
    assert in_force["Dense_2.kernel"] == 1 / WIDTH
    state = attachment.state_dict()
    assert state["recipe"]["name"] == "mup-adam"
    attachment.load_state_dict(state)
    attachment.close()


@pytest.mark.parametrize("follows", [True, False])
def test_a_run_says_whether_initial_weights_follow_its_recipe(*, follows: bool) -> None:
    params, advisor = params_of(8 * WIDTH), advisor_of()
    recipe = fslr.jax.recipe_for(
        params, profile="x", advisor=advisor, recipe="mup-adam", optimizer="adamw"
    )
    if follows:
        params = recipe.initialize(params)
    tx = optax.chain(recipe.partition(adamw), fslr.jax.scale_by_advice())
    attachment = fslr.jax.attach(
        lambda params, batch: mlp(params, batch[0]),
        *(params, tx.init(params)),
        profile="x",
        advisor=advisor,
        recipe="mup-adam",
        learning_rate=RATE,
    )
    assert advisor.openings[-1].initial_weights_follow_recipe is follows
    assert attachment.by_name()["Dense_2.kernel"].multiplier == 1 / WIDTH
    attachment.close()


def test_layers_of_a_stacked_leaf_are_scaled_and_stepped_together() -> None:
    def stacked(width: int, layers: int) -> Any:
        return {
            "embed": {"kernel": jnp.ones((3, width))},
            "blocks": {"kernel": jnp.full((layers, width, width), 0.5)},
            "head": {"kernel": jnp.ones((width, 2))},
        }

    axes = {"blocks": 0}
    base = stacked(4, 2)
    layout = fslr.jax.ModelGroups(base, form_of(base), axes).layout(base)
    params = stacked(16, 4)
    recipe = fslr.jax.recipe_for(
        *(params,),
        profile="x",
        optimizer="adamw",
        advisor=RecipeAdvisor(layout, "mup-adam"),
        stacked=axes,
    )
    scaled = recipe.initialize(params)
    np.testing.assert_allclose(scaled["blocks"]["kernel"], 0.25, rtol=1e-6)
    assert recipe.settings["blocks.kernel"].weight_decay == 4


def trained_looking(width: int) -> Any:
    """Return parameters of layers that are stacked, with a norm, of which nothing is random."""
    rows = 1 + jnp.arange(width) % 2  # every other row is twice as large
    return {
        "embed": {"kernel": jnp.ones((32, width))},
        "blocks": {
            "kernel": jnp.stack([jnp.ones((width, width)), jnp.outer(rows, rows).astype(float)]),
            "norm": {"scale": jnp.ones((2, width))},
        },
        "head": {"kernel": jnp.outer(jnp.ones(width), 1.0 + jnp.arange(32) % 2)},
    }


def test_parameters_that_are_scaled_already_or_look_trained_are_refused() -> None:
    params = params_of(8 * WIDTH)
    options: dict[str, Any] = {"profile": "x", "optimizer": "adamw"}
    recipe = fslr.jax.recipe_for(params, advisor=advisor_of("mup-adam"), **options)
    scaled = recipe.initialize(params)
    with pytest.raises(AttachError, match="but these are as large as it leaves them; nothing was"):
        recipe.initialize(scaled)
    in_jit = jax.jit(recipe.initialize)(params)  # traced values cannot be looked at
    assert rms(in_jit["Dense_1"]["kernel"]) == pytest.approx(rms(scaled["Dense_1"]["kernel"]))
    shapes = jax.eval_shape(lambda: params)
    of_shapes = fslr.jax.recipe_for(shapes, advisor=advisor_of("mup-adam"), **options)
    assert of_shapes.settings == recipe.settings
    with pytest.raises(AttachError, match=r"got no finite values of Dense_0\.bias, Dense_0\.ker"):
        of_shapes.initialize(params)

    axes = {"blocks": 0}
    base, run = trained_looking(16), trained_looking(64)
    layout = fslr.jax.ModelGroups(base, form_of(base), axes).layout(base)
    advisor = RecipeAdvisor(layout, "mup-adam")
    recipe = fslr.jax.recipe_for(run, advisor=advisor, stacked=axes, **options)
    recipe.initialize(run)  # two of four matrices are uneven
    uneven = {**run, "embed": {"kernel": run["head"]["kernel"].T}}
    with pytest.raises(AttachError, match="trained: the rows or columns of 3 of 4 matrices diff"):
        recipe.initialize(uneven)
    gains = jnp.ones((2, 64)).at[1, 5].set(1.25)
    stepped = {**run, "blocks": {**run["blocks"], "norm": {"scale": gains}}}
    with pytest.raises(
        AttachError, match=r"entries of blocks\.1\.norm\.scale lie between 1 and 1\.25; nothing was"
    ):
        recipe.initialize(stepped)


def test_a_run_that_is_smaller_than_its_base_is_told_when_it_asks_for_its_recipe() -> None:
    base, events = params_of(64), list[Event]()
    layout = fslr.jax.ModelGroups(base, form_of(base)).layout(base)
    fslr.jax.recipe_for(
        *(params_of(16),),
        profile="x",
        optimizer="adamw",
        advisor=RecipeAdvisor(layout, "mup-adam"),
        listeners=[events.append],
    )
    messages = [event.message for event in events if isinstance(event, Warned)]
    assert any("mup-adam is for models that grow: the run is smaller" in m for m in messages)


def test_biases_of_each_layer_are_initialized_as_large_as_in_the_base() -> None:
    """They follow the fan-in, and the recipe has one factor for all of them."""

    def with_biases(width: int) -> Any:
        params = params_of(width)
        for layer in params.values():
            layer["bias"] = jnp.full_like(layer["bias"], layer["kernel"].shape[0] ** -0.5)
        return params

    base, params = with_biases(8), with_biases(64)
    layout = fslr.jax.ModelGroups(base, form_of(base)).layout(base)
    recipe = fslr.jax.recipe_for(
        params, profile="x", optimizer="adamw", advisor=RecipeAdvisor(layout, "mup-adam")
    )
    scaled = recipe.initialize(params)
    for name, layer in base.items():
        assert rms(scaled[name]["bias"]) == pytest.approx(rms(layer["bias"]), rel=1e-5)


def test_a_run_without_a_recipe_has_none_to_ask_for() -> None:
    with pytest.raises(AttachError, match="but the run follows none; pass one, such as recipe="):
        fslr.jax.recipe_for(params_of(8), profile="x", optimizer="adamw", advisor=advisor_of())
