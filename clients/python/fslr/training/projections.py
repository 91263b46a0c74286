"""Sums over projections, from which unit rates and the effect of a whole step are estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fslr.errors import MeasurementError
from fslr.training.estimate import RateEstimate

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ExactParts:
    """Parts of groups' changes of the outputs whose squares are known without a probe.

    Attributes:
        groups: The groups' indices.
        rows: Projections of the parts, float64 of shape [probes, B, parts].
        squares: Squares of the parts, summed over the output elements, float64 of shape [parts].
    """

    groups: list[int]
    rows: Floats
    squares: Floats


_NEGLIGIBLE_ROUNDING = 0.05  # relative to the change of the outputs
_CLEAR_OF_ROUNDING = 3.0  # a difference of that many rounding errors is a real one


@dataclass(frozen=True, slots=True)
class ProjectionSums:
    """Sums over the projections ``u`` of a measurement; the sums of several parts can be added.

    All arrays are float64.

    Attributes:
        squares: Sum of ``u^2`` of each group, shape [groups].
        fourths: Sum of ``u^4`` of each group, shape [groups].
        elements: Number of output elements N that the probes cover, in all parts together; the sum
            of their weights if they are weighted.
        examples: Number of examples B, in all parts together.
        probes: Number of probes K on each part.
        gram: Sum of ``u_g u_h`` for each pair of groups, shape [groups, groups]; None: not known.
        changes: Sum of the squared projections of the whole step's first-order change, over the
            parts whose real change is known; None: it is known for no part.
        residuals: Sum over the same parts of the squared projections of the difference between the
            real change and the first-order change; None if ``changes`` is.
    """

    squares: Floats
    fourths: Floats
    elements: float
    examples: int
    probes: int
    gram: Floats | None = None
    changes: float | None = None
    residuals: float | None = None

    def __add__(self, other: ProjectionSums) -> ProjectionSums:
        """Return the sums over both parts, as if both had the larger number of probes."""
        probes = max(self.probes, other.probes)
        one, two = self._for_probes(probes), other._for_probes(probes)
        return ProjectionSums(
            one.squares + two.squares,
            one.fourths + two.fourths,
            one.elements + two.elements,
            one.examples + two.examples,
            probes,
            None if one.gram is None or two.gram is None else one.gram + two.gram,
            _sum_of_known(one.changes, two.changes),
            _sum_of_known(one.residuals, two.residuals),
        )

    def _for_probes(self, probes: int) -> ProjectionSums:
        """Return sums with the same rates and errors, scaled to a different number of probes."""
        if probes == self.probes:
            return self
        factor = probes / self.probes
        return replace(
            self,
            squares=self.squares * factor,
            fourths=self.fourths * factor**2,
            probes=probes,
            gram=None if self.gram is None else self.gram * factor,
            changes=None if self.changes is None else self.changes * factor,
            residuals=None if self.residuals is None else self.residuals * factor,
        )

    def estimate(
        self, names: Sequence[str], learning_rates: Sequence[float] | None = None
    ) -> RateEstimate:
        r"""Return unit rates, and the effect of the whole step if the learning rates are known.

        The rate is :math:`\sqrt{\sum u^2 / (K N)}`; its square is unbiased. For its error, each
        projection is taken as Gaussian with its own variance :math:`v`, so
        :math:`\mathrm{Var}(u^2) = 2 v^2` and :math:`E u^4 = 3 v^2`. For :math:`n` projections of
        equal variance the ratio :math:`\rho = \sum u^4 / (\sum u^2)^2` has the mean
        :math:`3 / (n + 2)`. So :math:`n = 3 / \rho - 2` is the effective number of projections (at
        least 1, because :math:`\rho \le 1`), and the relative error of the rate is
        :math:`\frac12 \sqrt{2 / n}`.

        Args:
            names: The groups' names, for messages.
            learning_rates: Learning rate of each group, multiplier included; None: unknown.

        Raises:
            MeasurementError: No output element counts, or a rate is not finite.
        """
        if self.elements <= 0:
            raise MeasurementError(
                f"the mask gives each output element of the {self.examples} measured example(s) "
                "the weight 0, so there is nothing to measure; check the mask (mask=...)"
            )
        is_finite = np.isfinite(self.squares)
        if not is_finite.all():
            first = next(n for n, finite in zip(names, is_finite, strict=True) if not finite)
            count = int((~is_finite).sum())
            raise MeasurementError(
                f"the unit rate of {count} group(s) is not finite, first {first!r}; "
                "the model's outputs, gradients or weights contain NaN or inf"
            )
        scale = self.probes * self.elements
        zero = np.zeros_like(self.squares)
        ratio = np.divide(self.fourths, np.square(self.squares), out=zero, where=self.squares > 0)
        ratio = np.minimum(ratio, 1.0)
        errors = 0.5 * np.sqrt(2.0 * ratio / (3.0 - 2.0 * ratio))
        gram = None if self.gram is None else self.gram / scale
        estimate = RateEstimate(
            np.sqrt(self.squares / scale).tolist(),
            errors.tolist(),
            self.probes,
            self.examples,
            gram,
        )
        if gram is None or learning_rates is None:
            return estimate
        in_force = np.array(learning_rates, dtype=np.float64)
        parts = in_force * (gram @ in_force)
        total = float(parts.sum())
        if total <= 0:  # nothing moved, or noise outweighs the movement: shares have no meaning
            return replace(estimate, total_rate=0.0)
        return replace(
            estimate,
            total_rate=math.sqrt(total),
            shares=(parts / total).tolist(),
            linearity_error=self._linearity_error(),
        )

    def _linearity_error(self) -> float | None:
        if self.changes is None or self.residuals is None or self.changes <= 0:
            return None
        error = math.sqrt(self.residuals / self.changes)
        return error if math.isfinite(error) else None


def _use_exact_parts(
    squares: Floats, fourths: Floats, rows: Floats, examplewise: Flags, exact: ExactParts
) -> None:
    r"""Replace the estimated squares of parts by the exact ones, in place.

    A group's projection is :math:`u = h + e` with the known square of :math:`h`. So
    :math:`\sum u^2 + (K |h|^2 - \sum h^2)` is unbiased, and its error is that of
    :math:`\sum (e^2 + 2 e h)`. If :math:`e = 0`, it is exact. The fourths become those of as many
    equal projections as have this error.
    """
    for part, group in enumerate(exact.groups):
        whole, known = rows[..., group], exact.rows[..., part]
        if not bool(examplewise[group]):
            whole, known = whole.sum(1), known.sum(1)
        of_whole, of_known = np.square(whole).sum(), np.square(known).sum()
        estimate = len(rows) * exact.squares[part]
        variance = np.float64(0.0)  # relative to that of projections of equal variance
        if not np.array_equal(whole, known):
            estimate = estimate + of_whole - of_known
            variance = of_whole**2 - 2 * (whole * known).sum() ** 2 + of_known**2
        if not estimate > 0 and of_whole > 0:
            continue  # noise: the plain estimate is at least positive
        effective = 1.0
        if of_whole > 0:
            effective = max(1.0, 3 * of_whole**2 / fourths[group] - 2)
        squares[group] = estimate
        fourths[group] = 3 * variance / effective


def _is_rounding(changes: float, residuals: float, rounding: float) -> bool:
    """Return whether the nonlinear part of a change may be the rounding of the outputs."""
    is_small = rounding <= _NEGLIGIBLE_ROUNDING**2 * changes
    return changes > 0 and not is_small and residuals <= _CLEAR_OF_ROUNDING**2 * rounding


def _sum_of_known(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


@np.errstate(invalid="ignore", over="ignore")  # estimate() refuses what is not finite
def sums_of_rows(
    rows: Floats,
    examplewise: Flags,
    *,
    elements: float,
    probes: int,
    learning_rates: Floats | None = None,
    real: Floats | None = None,
    exact: ExactParts | None = None,
    rounding: float = 0.0,
) -> ProjectionSums:
    """Return the sums over the projections of one or more probes on one part of a batch.

    The rows of a group are squared one by one if they belong to examples. Otherwise only the sum
    over a probe's rows is meaningful, and is squared. A product of two groups is taken row by row
    if the rows of both belong to examples.

    Args:
        rows: Projections, float64 of shape [probes, B, groups].
        examplewise: Whether each group's rows belong to examples, bool [groups].
        elements: Number of output elements N in the part, or the sum of their weights.
        probes: Number of probes K of the measurement on each part.
        learning_rates: Learning rate of each group, float64 of shape [groups]; None: unknown.
        real: Projections of the real change of the outputs, float64 of shape [probes, B]; None:
            unknown.
        exact: Parts of the groups' changes whose squares are known; None: there are none.
        rounding: Expected square of the projection of the real change's rounding errors on a probe.
            If they may explain the difference between the real change and the first-order one, and
            it is not small, the real change counts as unknown.
    """
    totals = rows.sum(1)
    changes = residuals = None
    if learning_rates is not None and real is not None:
        # The whole step is known per example only if every group is.
        by_example = bool(examplewise.all())
        change = rows @ learning_rates if by_example else totals @ learning_rates
        moved = real if by_example else real.sum(1)
        changes = float(np.square(change).sum())
        residuals = float(np.square(moved - change).sum())
        if _is_rounding(changes, residuals, rounding * len(rows)):
            changes = residuals = None
    flat = rows.reshape(-1, rows.shape[-1])
    both = examplewise[:, None] & examplewise[None, :]
    squares = np.where(examplewise, np.square(flat).sum(0), np.square(totals).sum(0))
    fourths = np.where(examplewise, (flat**4).sum(0), (totals**4).sum(0))
    gram = np.where(both, flat.T @ flat, totals.T @ totals)
    if exact is not None:
        _use_exact_parts(squares, fourths, rows, examplewise, exact)
        np.fill_diagonal(gram, squares)
    return ProjectionSums(
        squares,
        fourths,
        elements,
        rows.shape[1],
        probes,
        gram,
        changes,
        residuals,
    )
