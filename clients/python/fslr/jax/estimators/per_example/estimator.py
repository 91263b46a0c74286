r"""The ``per_example`` estimator: unbiased unit rates with one degree of freedom per example.

Theory. The outputs ``f`` have ``N`` elements over ``B`` examples. For a group with unit update
``U``, the outputs move to first order by ``d f = J U``, and the unit rate is ``sqrt(|d f|^2 / N)``.
A probe ``z`` has independent entries of mean 0 and variance 1, so ``E[(z . d f)^2] = |d f|^2``.
Write ``z . d f = sum_b u_b``, where ``u_b`` depends on the probe's entries of example ``b`` only.
Then ``E[u_b u_c] = 0`` for ``b != c`` and

.. math:: E\Big[\sum_b u_b^2\Big] = E\Big[\big(\sum_b u_b\big)^2\Big] = |d f|^2 .

Computing ``u_b`` without per-example gradients. The parameters are followed through the traced
function to the places where they act on the data (:mod:`.follow`). The result there has a local map
``y``: for a product ``x @ W`` it is ``x @ U``. Example ``b``'s rows of the result are moved by
``s_b y`` with a step size ``s_b`` for each group and example, and ``u_b`` is the derivative of
``z . f`` by ``s_b`` at 0 (:mod:`.taps`). One backward pass gives all of them. It has no gradient by
parameters, and the local maps do not depend on ``z``, so K probes share them.

Where the examples are in a result is derived from the equations of the backward pass
(:mod:`.row_analysis`). If its rows belong to no single example, as before batch norm in train mode,
one step size moves them all, which has one degree of freedom per probe.

Where a parameter acts directly on the outputs, as the head of a language model does, no probe is
needed: the RMS of its local map is exact. If it also acts elsewhere (tied embeddings), only the
part that involves the other places is estimated.

Source: the probe identity is from Milsom, Anson, Aitchison, arXiv 2502.17405. Squaring per example
is this project's own (docs/decisions/0002-per-example-estimator.md).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.base import Estimator
from fslr.jax.estimators.exact import difference, group_changes
from fslr.jax.estimators.measurement import Projections
from fslr.jax.estimators.per_example.plan import Plan, find_plan
from fslr.jax.estimators.per_example.projector import Projector
from fslr.jax.estimators.precision import rounding_of
from fslr.jax.estimators.step import Step


class PerExampleEstimator(Estimator):
    """Estimates unit rates without bias, with one degree of freedom per example.

    The relative standard error of a rate is about ``0.5 * sqrt(2 / (B * K))`` for groups measured
    per example. Up to four groups that cannot be measured per example are measured exactly, by a
    derivative of their own. If there are more, their rows are summed and each requested probe
    becomes 8 probes, for an error of ``0.5 * sqrt(2 / (8 * K))``.
    """

    def _content(
        self,
        step: Step,
        key: Array,
        after: Array | None,
        probes: int,
    ) -> tuple[Projections, Array, dict[str, str]]:
        plan = find_plan(step)
        projector = Projector(plan, step)
        outputs = projector.outputs
        weights = self._weights(step.batch, outputs)
        changes = [weights.clear(change) for change in _exact_changes(plan, step)]
        real = None if after is None else weights.clear(difference(after, outputs))

        def project(key: Array) -> tuple[Array, Array, Array, Array | None]:
            probe = weights.weigh(jax.random.rademacher(key, outputs.shape, jnp.float32))
            rows, known, squares = projector.project(probe.astype(outputs.dtype))
            own = [_by_example(probe * change) for change in changes]
            for group, row in zip(plan.exact, own, strict=True):
                rows = rows.at[:, group].set(row)
            known = jnp.concatenate([known, *(row[:, None] for row in own)], 1)
            return rows, known, squares, None if real is None else _by_example(probe * real)

        keys = jax.random.split(key, probes * plan.probe_factor)
        if len(keys) == 1:
            found = jax.tree.map(lambda each: each[None], project(keys[0]))
        else:
            found = jax.lax.map(project, keys)
        rows, known, squares, moved = found
        exact = [jnp.sum(jnp.square(weights.weigh(change))) for change in changes]
        content = Projections(
            rows,
            known,
            jnp.concatenate([squares[0], *(square[None] for square in exact)]),
            moved,
            jnp.float32(0.0) if real is None else rounding_of(step.function, outputs, weights),
            tuple(group not in plan.summed for group in range(len(step.groups))),
            (*projector.direct_groups, *plan.exact),
        )
        return content, weights.total, {step.groups[i].name: why for i, why in plan.slow.items()}


def _exact_changes(plan: Plan, step: Step) -> list[Array]:
    """Return the changes of the outputs by the groups that are measured exactly."""
    if not plan.exact:
        return []
    _, change_of = group_changes(replace(step, groups=tuple(step.groups[i] for i in plan.exact)))
    return [change_of(jnp.int32(n)).astype(jnp.float32) for n in range(len(plan.exact))]


def _by_example(values: Array) -> Array:
    return jnp.sum(values.reshape(len(values), -1), 1)
