"""Trainings of the small perceptron, plain, recorded or advised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import fslr.jax
from fslr.advisor.v1 import policy_pb2
from fslr.jax import MeasuringOptions
from fslr.testing import FakeAdvisor
from tests.unit.jax.nets import batches, mlp, mlp_params, train_step_of

EXACT = MeasuringOptions(estimator="exact", linearity=False)
SCHEDULE = optax.linear_schedule(2e-3, 1e-2, 10)
PARAMS = mlp_params((3, 6, 2))
NAMES = ["Dense_0.bias", "Dense_0.kernel", "Dense_1.bias", "Dense_1.kernel"]
COUPLED = policy_pb2.WEIGHT_DECAY_RULE_COUPLED
INDEPENDENT = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT


def outputs_of(params: Any, batch: Any) -> jax.Array:
    """Return the outputs of the perceptron for a batch of inputs and targets."""
    return mlp(params, batch[0])


def advised_tx(**options: Any) -> optax.GradientTransformation:
    """Return an optimizer with advice."""
    return optax.chain(optax.adamw(SCHEDULE), fslr.jax.scale_by_advice(**options))


def advisor(*multipliers: float, rule: Any = COUPLED, interval: int = 3) -> FakeAdvisor:
    """Return an advisor that always answers with the same multipliers."""
    return FakeAdvisor(
        multipliers or (0.5, 2.0, 1.0, 0.25), weight_decay=rule, interval_steps=interval
    )


@dataclass(slots=True)
class Trained:
    """A training that has ended.

    Attributes:
        params: The parameters.
        opt_state: The optimizer's state.
        attached: What was attached to it; None: nothing.
        compiled: How often the step was compiled.
    """

    params: Any
    opt_state: Any
    attached: Any
    compiled: int


def train(
    tx: optax.GradientTransformation,
    attach: Callable[[Any, Any], Any] | None = None,
    *,
    steps: int = 4,
    params: Any = None,
    train_step: Any = None,
) -> Trained:
    """Train for some steps, with a recorder or an attachment if one is given."""
    params = PARAMS if params is None else params
    opt_state = tx.init(params)
    attached = attach(params, opt_state) if attach is not None else None
    compiled = train_step or train_step_of(tx)
    step = compiled if attached is None else attached.wrap(compiled)
    for batch in batches(steps):
        params, opt_state, _ = step(params, opt_state, batch)
    return Trained(params, opt_state, attached, compiled._cache_size())


def attaching(to: Any, **options: Any) -> Callable[[Any, Any], fslr.jax.Attachment]:
    """Return a function that attaches parameters and an optimizer's state to an advisor."""
    given = {"learning_rate": SCHEDULE, "options": EXACT, "answers": "wait", **options}
    return lambda params, opt_state: fslr.jax.attach(
        outputs_of, params, opt_state, profile="base", advisor=to, **given
    )


def recording(**options: Any) -> Callable[[Any, Any], fslr.jax.Recorder]:
    """Return a function that records a training."""
    given = {"learning_rate": SCHEDULE, "options": EXACT, "every": 2, **options}
    return lambda params, opt_state: fslr.jax.Recorder(outputs_of, params, opt_state, **given)


def assert_same(first: Any, second: Any) -> None:
    """Check that two pytrees are bit-identical."""
    jax.tree.map(np.testing.assert_array_equal, first, second)
