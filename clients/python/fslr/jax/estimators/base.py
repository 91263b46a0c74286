"""The base class of the estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fslr.errors import MeasurementError
from fslr.jax.estimators.groups import LeafGroup, PyTree, check_groups, check_updates
from fslr.jax.estimators.mask import Mask, Weights, weights_of
from fslr.jax.estimators.measurement import ExactChanges, Measurement, Projections
from fslr.jax.estimators.scaling import scaled, uses_float16
from fslr.jax.estimators.step import Step

ApplyFn = Callable[[PyTree, PyTree], Array]
"""Returns the outputs for parameters and a batch; one dimension counts the examples."""


class Estimator(ABC):
    """Estimates the unit rate of every group of a model.

    Measuring is one jitted function. It is compiled once for all measurements with the same shapes,
    types and shardings, and it may be called inside of a jitted training step.

    Args:
        apply_fn: Returns the outputs for parameters and a batch. It must be pure: for dropout, put
            the key into the batch.
        groups: The groups, as :func:`leaf_groups` returns them.
        mask: Weighs the elements of the outputs; None: all count the same.
        probes: Number of probes K per measurement, >= 1.
        output_axis: The axis of the outputs that counts the examples.

    Raises:
        MeasurementError: ``probes`` is below 1, or there is no group.
    """

    def __init__(
        self,
        apply_fn: ApplyFn,
        groups: Sequence[LeafGroup],
        *,
        mask: Mask = None,
        probes: int = 1,
        output_axis: int = 0,
    ) -> None:
        if probes < 1:
            raise MeasurementError(f"probes is {probes}; a measurement needs at least 1")
        if not groups:
            raise MeasurementError("there are no groups to measure; pass at least one")
        self._apply_fn = apply_fn
        self._groups = tuple(groups)
        self._mask = mask
        self._output_axis = output_axis
        self._slow: dict[str, str] = {}
        self.probes = probes
        self._compilations = 0
        self._jitted = jax.jit(self._measured, static_argnames=("probes",))

    @property
    def groups(self) -> tuple[LeafGroup, ...]:
        """The groups."""
        return self._groups

    @property
    def slow_groups(self) -> dict[str, str]:
        """The groups that have taken a slow route so far, with the reason for each."""
        return dict(self._slow)

    @property
    def compilations(self) -> int:
        """How many times measuring was compiled so far, once for all arguments alike."""
        return self._compilations

    def measure(
        self,
        params: PyTree,
        unit_updates: PyTree,
        batch: PyTree,
        key: Array,
        *,
        params_after: PyTree = None,
    ) -> Measurement:
        """Measure all groups; does not wait for the device.

        No argument is donated or changed. If the training step donates its parameters, call this
        inside of the step, or keep a copy of them.

        Args:
            params: The parameters before the step: any pytree of arrays.
            unit_updates: The update of the step divided by the learning rate: a pytree of the same
                structure.
            batch: What ``apply_fn`` takes beside the parameters.
            key: The key of the probes; a different one for each measurement.
            params_after: The parameters after the step, for the linearity error; None: it is not
                measured.

        Raises:
            MeasurementError: The pytrees do not fit each other or the groups, a leaf of a group is
                not an array of real floating-point numbers, or the outputs are not an array of real
                numbers with an axis for the examples.
        """
        check_groups(self._groups, params)
        check_updates(params, unit_updates)
        if params_after is not None:
            check_updates(params, params_after)
        measured: Measurement = self._jitted(
            params, unit_updates, batch, key, params_after, probes=self.probes
        )
        self._slow.update(measured.slow)
        return measured

    def _measured(
        self,
        params: PyTree,
        unit_updates: PyTree,
        batch: PyTree,
        key: Array,
        params_after: PyTree,
        *,
        probes: int,
    ) -> Measurement:
        self._compilations += 1  # this is traced, and not run
        leaves, structure = jax.tree_util.tree_flatten(params)
        updates = jax.tree_util.tree_leaves(unit_updates)

        def apply(leaves: Sequence[Any], batch: PyTree) -> Array:
            outputs = self._apply_fn(jax.tree_util.tree_unflatten(structure, leaves), batch)
            return self._checked(outputs)

        after = None
        if params_after is not None:
            after = apply(jax.tree_util.tree_leaves(params_after), batch)
        function = jax.make_jaxpr(apply)(leaves, batch)
        scales: Array | None = None
        unscaled = updates
        if uses_float16(function):
            updates, scales = scaled(updates, self._groups)
        step = Step(apply, leaves, updates, batch, self._groups, function)
        content, elements, slow = self._content(step, key, after, probes)
        return Measurement(
            content,
            elements,
            self._rms(leaves),
            self._rms(unscaled),
            scales,
            tuple(group.name for group in self._groups),
            tuple(slow.items()),
        )

    @abstractmethod
    def _content(
        self,
        step: Step,
        key: Array,
        after: Array | None,
        probes: int,
    ) -> tuple[Projections | ExactChanges, Array, dict[str, str]]:
        """Measure all groups; traced by :func:`jax.jit`.

        Args:
            step: The step.
            key: The key of the probes.
            after: The outputs with the parameters after the step; None: unknown.
            probes: Number of probes.

        Returns:
            What was measured, the number of output elements or the sum of their weights, and the
            groups that took a slow route with the reason for each.
        """

    def _weights(self, batch: PyTree, outputs: Array) -> Weights:
        """Return the weights of outputs with the examples on axis 0."""
        axis = self._output_axis
        return weights_of(self._mask, batch, jnp.moveaxis(outputs, 0, axis)).moved(axis)

    def _checked(self, outputs: Any) -> Array:
        """Return the outputs with the examples on axis 0."""
        if not isinstance(outputs, (Array, jax.core.Tracer)):
            raise MeasurementError(
                f"apply_fn returned a {type(outputs).__name__}; it must return one array, such as "
                "the logits"
            )
        axis = self._output_axis
        if not 0 <= axis < outputs.ndim:
            raise MeasurementError(
                f"output_axis is {axis}, and the outputs have shape {outputs.shape}; one axis of "
                "the outputs must count the examples"
            )
        if not jnp.issubdtype(outputs.dtype, jnp.floating):
            raise MeasurementError(
                f"the outputs have type {outputs.dtype}; they must be real floating-point numbers, "
                "such as logits"
            )
        if outputs.size == 0:
            raise MeasurementError(
                f"the outputs have shape {outputs.shape}, so there is nothing to measure; "
                "the batch must have at least one example"
            )
        return jnp.moveaxis(outputs, axis, 0)

    def _rms(self, leaves: Sequence[Array]) -> Array:
        """Return the RMS of each group's part of some leaves, float32 [groups]."""
        squares: dict[tuple[int, int | None], tuple[Array, int]] = {}
        for group in self._groups:
            for index in group.leaves:
                axis = None if group.layer is None else group.axis
                if (index, axis) not in squares:
                    leaf = leaves[index]
                    kept = () if axis is None else (axis,)
                    summed = tuple(d for d in range(leaf.ndim) if d not in kept)
                    total = jnp.sum(jnp.square(leaf.astype(jnp.float32)), summed)
                    squares[index, axis] = total, leaf.size // max(1, total.size)
        found = []
        for group in self._groups:
            total, count = jnp.float32(0.0), 0
            for index in group.leaves:
                square, size = squares[index, None if group.layer is None else group.axis]
                total += square if group.layer is None else square[group.layer]
                count += size
            found.append(jnp.sqrt(total / max(1, count)))
        return jnp.stack(found)
