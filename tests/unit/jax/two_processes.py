"""A training that runs in one process, or as one of two that share it; prints what a test checks.

``python -m tests.unit.jax.two_processes PORT RANK`` is one of the two processes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fslr
import fslr.jax
from advisor.local.in_process import InProcessAdvisor
from fslr import ServiceError
from fslr.advisor.v1 import policy_pb2
from fslr.jax import MeasuringOptions
from tests.unit.jax.nets import batches, mlp, mlp_params, train_step_of

_EXACT = MeasuringOptions(estimator="exact", linearity=False)
_LEARNING_RATE = 1e-2
_STEPS = 4
_SLOW_STEPS = 16
_STEP_S = 0.05  # how long a step of a training takes whose answers come in the background


def outputs_of(params: Any, batch: Any) -> jax.Array:
    """Return the outputs of the perceptron for a batch of inputs and targets."""
    return mlp(params, batch[0])


Placing = Callable[[Any, int | None], Any]
"""Places an array: its axis that is divided between the processes; None: each has all of it."""


class NoAdvisor:
    """An advisor that fails whenever it is asked."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_arguments: Any, **_options: Any) -> Any:
            raise ServiceError(
                f"the advisor must not be called in this process, but {name} was called"
            )

        return fail


def train(
    place: Placing,
    attach: Callable[[Any, Any], Any],
    width: int,
    *,
    steps: int = _STEPS,
    after_step: Callable[[Any], None] = lambda _: None,
) -> tuple[Any, Any]:
    """Train a perceptron, and return its parameters and what was attached.

    The first kernel is divided between the processes, as each batch is.
    """
    tx = optax.chain(optax.adam(_LEARNING_RATE), fslr.jax.scale_by_advice())
    params = jax.tree.map(lambda leaf: place(leaf, None), mlp_params((3, width, 2)))
    params["Dense_0"]["kernel"] = place(mlp_params((3, width, 2))["Dense_0"]["kernel"], 1)
    opt_state = jax.jit(tx.init)(params)
    attached = attach(params, opt_state)
    step = attached.wrap(train_step_of(tx))
    for parts in batches(steps):
        batch = tuple(place(part, 0) for part in parts)
        params, opt_state, _ = step(params, opt_state, batch)
        after_step(opt_state)
    return params, attached


def run(
    place: Placing, advisor_of: Callable[[Any], Any], *, in_background: bool = False
) -> dict[str, Any]:
    """Record a narrow perceptron, and train a wider one with its profile.

    Args:
        place: Places the arrays.
        advisor_of: Returns the advisor for a profile.
        in_background: Whether to train once more, with answers that come in the background.
    """

    def recorder(params: Any, opt_state: Any) -> fslr.jax.Recorder:
        return fslr.jax.Recorder(
            outputs_of,
            params,
            opt_state,
            learning_rate=_LEARNING_RATE,
            every=2,
            provenance=fslr.Provenance(
                "perceptron", width=4, depth=2, dataset="noise", batch_size=8, commit="0123abc"
            ),
            options=_EXACT,
        )

    _, recorded = train(place, recorder, 4)
    profile = recorded.profile()
    policy = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=1)

    def attachment(params: Any, opt_state: Any) -> fslr.jax.Attachment:
        return fslr.jax.attach(
            outputs_of,
            params,
            opt_state,
            profile="base",
            advisor=advisor_of(profile),
            learning_rate=_LEARNING_RATE,
            run=fslr.RunInfo(policy=policy, total_steps=_STEPS),
            options=_EXACT,
            answers="wait",
        )

    params, advised = train(place, attachment, 8)
    return {
        "points": [list(point.unit_rates) for point in profile.points],
        "multipliers": advised.multipliers,
        "has_answer": advised.answer is not None,
        "failures": recorded.failures + advised.failures,
        "bias": np.asarray(params["Dense_1"]["bias"]).tolist(),
        "in_force": background(place, advisor_of(profile)) if in_background else [],
    }


class Slow:
    """An advisor in this process whose answers take as long as several steps.

    Args:
        advisor: The advisor.
    """

    def __init__(self, advisor: Any) -> None:
        self._advisor = advisor

    def validate_layout(self, opening: Any) -> Any:
        return self._advisor.validate_layout(opening)

    def open_run(self, opening: Any) -> Any:
        self._session = self._advisor.open_run(opening)
        return self

    def recommend(self, measurement: Any) -> Any:
        if measurement.step:
            time.sleep(3 * _STEP_S)
        return self._session.recommend(measurement)

    def close(self) -> None:
        self._session.close()


def background(place: Placing, advisor: Any) -> list[float]:
    """Return the multiplier of a kernel in each step of a training that waits for no answer."""
    found: list[float] = []

    def keep(opt_state: Any) -> None:
        multiplier: Any = fslr.jax.multipliers_of(opt_state)["Dense_1.kernel"]
        found.append(multiplier)
        time.sleep(_STEP_S)

    def attachment(params: Any, opt_state: Any) -> fslr.jax.Attachment:
        return fslr.jax.attach(
            outputs_of,
            params,
            opt_state,
            profile="base",
            advisor=Slow(advisor),
            learning_rate=_LEARNING_RATE,
            run=fslr.RunInfo(
                policy=policy_pb2.Policy(min_interval_steps=1, max_interval_steps=1),
                total_steps=_SLOW_STEPS,
            ),
            options=_EXACT,
            max_overhead=100.0,  # a budget that allows each measurement
        )

    _, advised = train(place, attachment, 8, steps=_SLOW_STEPS, after_step=keep)
    assert advised.failures == 0
    advised.close()
    return found


def refusal(place: Placing, advisor_of: Callable[[Any], Any]) -> str:
    """Return the error of a training whose advisor does not answer."""
    try:
        train(
            place,
            lambda params, opt_state: fslr.jax.attach(
                outputs_of,
                params,
                opt_state,
                profile="base",
                advisor=advisor_of(None),
                learning_rate=_LEARNING_RATE,
            ),
            4,
        )
    except ServiceError as error:
        return str(error)
    return ""


class Refusing:
    """An advisor that refuses a run."""

    def open_run(self, _: Any) -> Any:
        return None

    def validate_layout(self, _: Any) -> Any:
        raise ServiceError("the profile base does not exist")


def main() -> None:
    """Be one of the two processes."""
    port, rank = map(int, sys.argv[1:])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call]
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spec: Any = PartitionSpec

    def place(array: Any, axis: int | None) -> Any:
        axes = [] if axis is None else [*[None] * axis, "data"]
        host = np.asarray(array)
        return jax.make_array_from_callback(
            host.shape, NamedSharding(mesh, spec(*axes)), lambda index: host[index]
        )

    is_first = jax.process_index() == 0
    found = run(place, InProcessAdvisor if is_first else lambda _: NoAdvisor(), in_background=True)
    found["refusal"] = refusal(place, lambda _: Refusing() if is_first else NoAdvisor())
    print(json.dumps(found))  # noqa: T201
    multihost_utils.sync_global_devices("done")


if __name__ == "__main__":
    main()
