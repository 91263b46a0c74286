"""The scheduled learning rates of a training's steps, without waiting for the device.

They come from what the user passes, a number or a schedule, or from ``optax.inject_hyperparams`` in
the optimizer's state. Schedules are computed on the CPU, many steps at a time.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fslr.errors import AttachError
from fslr.jax.advice_state import step_counts
from fslr.jax.advice_transform import LearningRate

_STEPS = 256  # of a schedule that are computed together
_UNPLANNED_STEPS = 10_000  # that are searched for the largest learning rate
_UNKNOWN = (
    "pass attach(..., learning_rate=...): the number or the schedule that the optimizer was built "
    "with, or a pytree of them for the parameters"
)


class Schedule:
    """The values of a schedule, computed on the CPU for many steps at a time.

    Args:
        schedule: A number, or a function of the number of steps so far.

    Raises:
        AttachError: It is neither, or its first value is negative or not finite.
    """

    def __init__(self, schedule: LearningRate) -> None:
        self._schedule = schedule
        self._start = 0
        self._values: list[float] = []
        try:
            first = self.at(0)
        except Exception as error:
            raise AttachError(
                f"learning_rate is {schedule!r}; it must be a number, or a function of the number "
                f"of steps that returns one: {error}"
            ) from error
        if not (math.isfinite(first) and first >= 0):
            raise AttachError(f"learning_rate is {first} at step 0; it must be at least 0")

    def at(self, step: int) -> float:
        """Return the learning rate of a step, given by the number of steps before it."""
        if not callable(self._schedule):
            return float(self._schedule)
        if not 0 <= step - self._start < len(self._values):
            self._start, self._values = step, self._computed(step)
        return self._values[step - self._start]

    def largest(self, steps: int) -> float:
        """Return the largest learning rate of the first steps.

        Args:
            steps: Their number, >= 1.
        """
        return max(self._computed(0, steps)) if callable(self._schedule) else self.at(0)

    def _computed(self, start: int, count: int = _STEPS) -> list[float]:
        """Return the learning rates of some steps; only the first if they must be one by one."""
        schedule: Any = self._schedule
        with _on_cpu():
            steps = jnp.arange(start, start + count)
            try:
                values: list[float] = np.asarray(jax.vmap(schedule)(steps), np.float64).tolist()
            except Exception:  # noqa: BLE001 - a schedule that computes with Python's numbers
                values = [float(schedule(start))]
        return values


class LearningRates:
    """The learning rate of each leaf of the parameters.

    Args:
        given: What the user passed: a number, a schedule, or a pytree of them whose structure is a
            prefix of that of the parameters. None: those in the optimizer's state.
        params: The parameters.
        opt_state: The optimizer's state.

    Attributes:
        count: Number of steps that the optimizer has made.

    Raises:
        AttachError: No learning rate is known, or one is not a number or a schedule.
    """

    def __init__(self, given: Any, params: Any, opt_state: Any) -> None:
        self._leaves = len(jax.tree.leaves(params))
        self._schedules = None if given is None else _of_leaves(given, params)
        self._pending: deque[Any] = deque()
        self._latest = self._peak = 0.0
        self.count = _count(opt_state)
        if self._schedules is None:
            self._latest = injected(opt_state)

    def largest(self, total_steps: int) -> float:
        """Return the largest learning rate of the training that is known.

        Args:
            total_steps: Planned number of steps; 0: unknown.
        """
        if self._schedules is None:
            return self._latest
        steps = total_steps or _UNPLANNED_STEPS
        return max(schedule.largest(steps) for schedule in set(self._schedules))

    def scheduled(self) -> list[float]:
        """Return the learning rate of each leaf in the next step, where it is known.

        It does not wait. An injected learning rate may be that of an earlier step.
        """
        if self._schedules is not None:
            return [schedule.at(self.count) for schedule in self._schedules]
        while self._pending and self._pending[0].is_ready():
            self._read()
        return [self._latest] * self._leaves

    def _read(self) -> None:
        """Read the oldest learning rate that was not read yet."""
        self._latest = float(self._pending.popleft())
        self._peak = max(self._peak, self._latest)

    def peak(self) -> float:
        """Return the largest injected learning rate so far; may wait for the device.

        It is 0 for schedules, whose learning rates are known when steps begin.
        """
        while self._pending:
            self._read()
        return self._peak

    def stepped_with(self, opt_state: Any) -> list[float]:
        """Return the learning rate of each leaf in the latest step; may wait for the device.

        Args:
            opt_state: The optimizer's state after the step.
        """
        if self._schedules is not None:
            return self.scheduled()
        self._latest = injected(opt_state)
        return [self._latest] * self._leaves

    def end_step(self, opt_state: Any) -> None:
        """Take note of a step.

        Args:
            opt_state: The optimizer's state after the step.
        """
        self.count += 1
        if self._schedules is None:
            found = _injected_arrays(opt_state)
            # A copy, since the next step may overwrite what is donated to it.
            self._pending.extend(jnp.copy(array) for array in found[:1])

    def follow(self, opt_state: Any) -> None:
        """Read the number of steps from the optimizer's state; may wait for the device.

        Args:
            opt_state: The state after a step that :meth:`end_step` was not called for.
        """
        made = _count(opt_state)
        if made:
            self.count = made - 1


def injected(opt_state: Any) -> float:
    """Return the learning rate that ``optax.inject_hyperparams`` keeps in an optimizer's state.

    Args:
        opt_state: The state.

    Raises:
        AttachError: There is none, or there are several different ones.
    """
    values = {float(np.asarray(array)) for array in _injected_arrays(opt_state)}
    if not values:
        raise AttachError(f"the optimizer's state has no learning rate; {_UNKNOWN}")
    if len(values) > 1:
        listed = ", ".join(format(value, ".3g") for value in sorted(values))
        raise AttachError(
            f"the optimizer's state has several learning rates ({listed}); {_UNKNOWN}"
        )
    return values.pop()


def _injected_arrays(opt_state: Any) -> list[jax.Array]:
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_injecting)
    values: list[Any] = [n.hyperparams.get("learning_rate") for n in nodes if _is_injecting(n)]
    return [array for value in values for array in jax.tree.leaves(value)]


def _is_injecting(node: Any) -> bool:
    return hasattr(node, "hyperparams") and hasattr(node, "inner_state")


def _of_leaves(given: Any, params: Any) -> list[Schedule]:
    """Return the schedule of each leaf; leaves that share one share the object.

    Raises:
        AttachError: The structure of what was given does not fit that of the parameters.
    """
    known: dict[int, Schedule] = {}

    def schedule(one: LearningRate) -> Schedule:
        return known.setdefault(id(one), Schedule(one))

    if callable(given) or isinstance(given, (int, float, np.generic, jax.Array)):
        return [schedule(given)] * len(jax.tree.leaves(params))
    try:
        spread = jax.tree.map(
            lambda one, part: [schedule(one)] * len(jax.tree.leaves(part)), given, params
        )
    except ValueError as error:
        raise AttachError(
            f"learning_rate is a {type(given).__name__} whose structure does not fit that of the "
            f"parameters: {error}"
        ) from error
    return jax.tree.leaves(spread, is_leaf=lambda node: isinstance(node, Schedule))


def _count(opt_state: Any) -> int:
    """Return the number of steps that an optimizer has made, as its state says; 0: not known."""
    own = step_counts(opt_state)
    if own:
        return max(own)
    find: Any = optax.tree_utils.tree_get_all_with_path
    found = find(opt_state, "count")
    counts = [int(np.asarray(leaf)) for _, tree in found for leaf in jax.tree.leaves(tree)]
    return max(counts, default=0)


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    try:
        (device, *_) = jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = jax.default_device(device)
    return context
