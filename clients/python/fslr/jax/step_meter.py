"""Measures the unit rates of a training's own steps, without changing the training.

If a step is measured, a :class:`StepMeter` copies the weights from before it, so a step may donate
its arguments. After the step it measures what the update does to the outputs of the step's batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fslr.errors import MeasurementError
from fslr.jax.estimators import Estimator, LeafGroup
from fslr.jax.groups import ModelGroups
from fslr.jax.measuring_options import MeasuringOptions
from fslr.jax.model_forms import ModelForm, SplitModel
from fslr.training.adapter_rates import with_joint_rates
from fslr.training.averaging import RunningAverage
from fslr.training.estimate import RateEstimate
from fslr.training.measurement_size import MeasurementSize
from fslr.training.slow_groups import SlowGroupsLog
from fslr.training.stopwatch import Stopwatch

Apply = Callable[[Any, Any], Any]
"""Returns the outputs of a model for a batch, with a dimension that counts the examples."""


@dataclass(slots=True)
class Step:
    """What a training step had and made.

    Attributes:
        model: The model, before the step or after it.
        batch: The batch; None: the step has not ended.
    """

    model: Any
    batch: Any = None


class StepMeter:
    """Measures optimizer steps of a model.

    Args:
        apply_fn: Returns the outputs of a model for a batch.
        form: How the model is taken apart.
        groups: Its groups.
        options: How to measure.
        model: The model, before its first step.

    Attributes:
        step: The step under way.
        stopwatch: Times what compiles; None: nothing does.
        size: How many examples and probes later measurements use.

    Raises:
        MeasurementError: An option is out of its range.
    """

    def __init__(
        self,
        apply_fn: Apply,
        form: ModelForm,
        groups: ModelGroups,
        options: MeasuringOptions,
        model: Any,
    ) -> None:
        self.step = Step(model)
        self.stopwatch: Stopwatch | None = None
        self.size = MeasurementSize(options.probes, options.examples)
        self._apply_fn = apply_fn
        self._form = form
        self._groups = groups
        self._adapters = groups.adapters()
        self._options = options
        self._static: Any = form.split(model).static
        self._average = RunningAverage(options.averaging)
        self._estimator = self._new_estimator()
        self._compiled: set[Any] = set()
        self._draws = 0
        self._before: SplitModel | None = None
        self._failure: Exception | None = None
        self._slow_groups_log = SlowGroupsLog(len(groups))

    def _new_estimator(self) -> Estimator:
        form, static, apply_fn = self._form, self._static, self._apply_fn

        def apply(params_and_arrays: Any, batch: Any) -> Any:
            params, arrays = params_and_arrays
            return apply_fn(form.merge(SplitModel(params, arrays, static)), batch)

        groups = [LeafGroup(g.name, (g.leaf,), g.layer, g.axis) for g in self._groups]
        return self._options.estimator_of(apply, groups)

    @property
    def slow_groups(self) -> dict[str, str]:
        """Names of the groups that are measured by a slow route, with the reason."""
        return self._estimator.slow_groups

    @property
    def excludes_decay(self) -> bool:
        """Whether the update is measured without its weight decay."""
        return self._options.exclude_weight_decay

    def wait(self) -> None:
        """Wait until the devices have done what they were asked to."""
        for leaf in jax.tree.leaves(self._form.split(self.step.model).params):
            leaf.block_until_ready()

    def begin_step(self) -> None:
        """Copy the weights: the step that follows is measured."""
        split = self._form.split(self.step.model)
        self._before = replace(
            split,
            params=jax.tree.map(jnp.copy, split.params),
            arrays=jax.tree.map(jnp.copy, split.arrays),
        )

    def _begun(self) -> SplitModel:
        """Return the model from before the step.

        Raises:
            MeasurementError: It was not kept.
        """
        if self._before is None:
            raise MeasurementError(
                "the step was not begun, so the weights before it are unknown; call before_step "
                "before each step"
            )
        return self._before

    def end_step(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> RateEstimate:
        """Measure the step that began with :meth:`begin_step`.

        Args:
            learning_rates: Absolute learning rate of each group in the step, including its
                multiplier. A group with 0 did not move and has the unit rate 0.
            uncounted_decays: Which part of each group's weights from before the step is added to
                its update, because it is weight decay that is not to be measured.

        Raises:
            MeasurementError: The step did not end with a batch, or cannot be measured.
        """
        if self._failure is not None:
            raise self._failure
        before, after = self._begun(), self._form.split(self.step.model)
        if self.step.batch is None:
            raise MeasurementError("after_step was called without a batch; pass that of the step")
        self._follow_structure(before)
        updates, has_moved = _unit_updates(
            before.params,
            after.params,
            self._spread([1 / used if used > 0 else 0.0 for used in learning_rates]),
            self._spread(uncounted_decays),
        )
        if not has_moved:  # the step was skipped, perhaps because its outputs are not finite
            return self._unmoved()
        batch, repeats = self._limited(before)
        self._estimator.probes = self.size.probes * repeats
        estimate = self._measured(before, after, updates, batch, learning_rates)
        self._slow_groups_log.measured(self.slow_groups)
        self.size.used(estimate.examples, estimate.probes, repeats)
        return self._average.add(estimate, self.size.probes * repeats)

    def _unmoved(self) -> RateEstimate:
        """Return the measurement of a step that changed no weight."""
        zeros = [0.0] * len(self._groups)
        return RateEstimate(zeros, zeros, self.size.probes, max(self.size.examples, 1))

    def _follow_structure(self, before: SplitModel) -> None:
        """Build the estimator anew if the model has changed its structure or its settings."""
        if not _equal(before.static, self._static):
            self._static = before.static
            self._estimator = self._new_estimator()
            self._compiled.clear()

    def _measured(
        self,
        before: SplitModel,
        after: SplitModel,
        updates: Any,
        batch: Any,
        learning_rates: Sequence[float],
    ) -> RateEstimate:
        key = jax.random.fold_in(jax.random.key(self._options.seed), self._draws)
        self._draws += 1

        def measure() -> RateEstimate:
            after_step = (after.params, before.arrays) if self._options.linearity else None
            measured = self._estimator.measure(
                (before.params, before.arrays),
                (updates, before.arrays),
                batch,
                key,
                params_after=after_step,
            )
            return with_joint_rates(
                measured.estimate(learning_rates), self._adapters, learning_rates
            )

        shapes = (self._estimator.probes, *map(_signature, jax.tree.leaves(batch)))
        if shapes not in self._compiled and self.stopwatch is not None:
            with self.stopwatch.preparing():
                measure()  # compiles
            self._compiled.add(shapes)
        return replace(
            measure(),
            excludes_weight_decay=self.excludes_decay,
            mask=self._options.mask_name,
        )

    def _spread(self, values: Sequence[float]) -> list[Any]:
        """Return a value for each group as float32 arrays that broadcast to the leaves."""
        found: list[Any] = [None] * len(self._groups.leaf_names)
        shapes = [leaf.ndim for leaf in jax.tree.leaves(self._begun().params)]
        for group, value in zip(self._groups, values, strict=True):
            if group.layer is None:
                found[group.leaf] = np.float32(value)
                continue
            if found[group.leaf] is None:
                found[group.leaf] = []
            found[group.leaf].append(value)
        for group in self._groups:
            if isinstance(found[group.leaf], list):
                shape = [-1 if d == group.axis else 1 for d in range(shapes[group.leaf])]
                found[group.leaf] = np.array(found[group.leaf], np.float32).reshape(shape)
        return found

    def _limited(self, before: SplitModel) -> tuple[Any, int]:
        """Return the step's batch, or its first examples if their number is limited; and repeats.

        A limit is a power of two, because each size is compiled.
        """
        batch = self.step.batch
        outputs = self._shape_of_outputs(before, batch)
        axis = self._options.output_axis
        whole = outputs.shape[axis] if axis < len(outputs.shape) else 0
        most, repeats = self.size.part(whole)
        if most is None or whole <= most:
            return batch, 1
        most = 1 << (most.bit_length() - 1)
        part = jax.tree.map(
            lambda leaf: leaf[:most] if jnp.ndim(leaf) and len(leaf) == whole else leaf, batch
        )
        try:
            cut = self._shape_of_outputs(before, part)
        except Exception:  # noqa: BLE001 - the model wants a batch of its own size
            return batch, 1
        whole_shape = list(outputs.shape)
        whole_shape[axis] = most
        return (part, repeats) if list(cut.shape) == whole_shape else (batch, 1)

    def _shape_of_outputs(self, model: SplitModel, batch: Any) -> Any:
        def outputs(params: Any, arrays: Any, batch: Any) -> Any:
            whole = SplitModel(params, arrays, model.static)
            return self._apply_fn(self._form.merge(whole), batch)

        return jax.eval_shape(outputs, model.params, model.arrays, batch)

    def rescale_step(self, factors: Sequence[float], decays: Sequence[float]) -> None:
        """Multiply the step's update by a factor for each group, except its weight decay.

        Args:
            factors: One for each group.
            decays: Which part of each group's weights from before the step it took away as weight
                decay that is not to be multiplied.

        Raises:
            MeasurementError: :meth:`begin_step` was not called for this step.
        """
        before, after = self._begun(), self._form.split(self.step.model)
        params = _rescaled(before.params, after.params, self._spread(factors), self._spread(decays))
        # The next step is compiled for the placement of the weights that it returned.
        params = jax.tree.map(_placed_like, params, after.params)
        self.step.model = self._form.with_params(self.step.model, params)

    def fail_step(self, error: Exception) -> None:
        """Let :meth:`end_step` raise an error.

        Args:
            error: The reason why the step cannot be measured.
        """
        self._failure = error

    def forget_step(self) -> None:
        """Release the weights and the batch that a measurement kept."""
        self._before = None
        self._failure = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: averages, and how many probes were drawn."""
        return {
            "average": self._average.state_dict(),
            "draws": self._draws,
            **self.size.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        self._average.load_state_dict(state["average"])
        self._draws = int(state["draws"])
        self.size.load_state_dict(state)


def _signature(leaf: Any) -> Any:
    return jnp.shape(leaf), getattr(leaf, "sharding", None)


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except Exception:  # noqa: BLE001 - parts that cannot be compared
        return False


def _placed_like(new: jax.Array, old: jax.Array) -> jax.Array:
    return jax.device_put(new, old.sharding) if old.committed else new


@jax.jit
def _unit_updates(
    before: Any, after: Any, factors: Sequence[jax.Array], decays: Sequence[jax.Array]
) -> tuple[Any, jax.Array]:
    """Return the unit updates, and whether any weight has changed."""
    old, structure = jax.tree.flatten(before)
    new = jax.tree.leaves(after)
    has_moved = jnp.stack([jnp.any(a != b) for a, b in zip(old, new, strict=True)]).any()
    updates = [
        ((b - a + decay * a) * factor).astype(a.dtype)
        for a, b, factor, decay in zip(old, new, factors, decays, strict=True)
    ]
    return jax.tree.unflatten(structure, updates), has_moved


@jax.jit
def _rescaled(
    before: Any, after: Any, factors: Sequence[jax.Array], decays: Sequence[jax.Array]
) -> Any:
    old, structure = jax.tree.flatten(before)
    new = jax.tree.leaves(after)
    scaled = [
        (a + (b - a + decay * a) * factor - decay * a).astype(b.dtype)
        for a, b, factor, decay in zip(old, new, factors, decays, strict=True)
    ]
    return jax.tree.unflatten(structure, scaled)
