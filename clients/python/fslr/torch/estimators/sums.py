r"""What estimators gather: sums over projections, of which estimates are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fslr.errors import MeasurementError
from fslr.training.estimate import RateEstimate


@dataclass(frozen=True, slots=True)
class ProjectionSums:
    """Sums over the projections ``u`` of a measurement; sums of several parts just add up.

    All tensors are float64 on the CPU.

    Attributes:
        squares: Sum of ``u^2`` of each group, shape [groups].
        fourths: Sum of ``u^4`` of each group, shape [groups].
        elements: Number of output elements N that the probes cover, all parts together.
        examples: Number of examples B, all parts together.
        probes: Number of probes K on each part.
        gram: Sum of ``u_g u_h``, shape [groups, groups], or None.
        changes: Sum of the squared projections of the whole step's first-order change, over the
            parts on which the real one is known; None: on none.
        residuals: Sum over the same parts of the squared projections of what the real change is off
            the first-order one, or None.
    """

    squares: Tensor
    fourths: Tensor
    elements: int
    examples: int
    probes: int
    gram: Tensor | None = None
    changes: float | None = None
    residuals: float | None = None

    def __add__(self, other: ProjectionSums) -> ProjectionSums:
        """Return the sums over both parts, which have the same number of probes."""
        return ProjectionSums(
            self.squares + other.squares,
            self.fourths + other.fourths,
            self.elements + other.elements,
            self.examples + other.examples,
            self.probes,
            None if self.gram is None or other.gram is None else self.gram + other.gram,
            _sum_of_known(self.changes, other.changes),
            _sum_of_known(self.residuals, other.residuals),
        )

    def estimate(
        self, names: Sequence[str], learning_rates: Sequence[float] | None = None
    ) -> RateEstimate:
        r"""Return unit rates and, where learning rates are known, what the step did as a whole.

        The rate is :math:`\sqrt{\sum u^2 / (K N)}`; its square is unbiased. For the error each
        projection counts as Gaussian with a variance :math:`v` of its own, so
        :math:`\mathrm{Var}(u^2) = 2 v^2` and :math:`E u^4 = 3 v^2`. Of :math:`n` equal ones the
        ratio :math:`\rho = \sum u^4 / (\sum u^2)^2` has the mean :math:`3 / (n + 2)`, so
        :math:`n = 3 / \rho - 2` is their effective number (at least 1, because
        :math:`\rho \le 1`), and the relative error of the rate is :math:`\frac12 \sqrt{2 / n}`.

        Args:
            names: The groups' names, for messages.
            learning_rates: Absolute learning rate of each group, multiplier included.

        Raises:
            MeasurementError: A rate is not finite.
        """
        if not bool(torch.isfinite(self.squares).all()):
            first = next(n for n, s in zip(names, self.squares, strict=True) if not s.isfinite())
            count = int((~self.squares.isfinite()).sum())
            raise MeasurementError(
                f"the unit rate of {count} group(s) is not finite, first {first!r}; "
                "the model's outputs, gradients or weights hold NaN or inf"
            )
        scale = self.probes * self.elements
        some = self.squares > 0
        ratio = torch.where(some, self.fourths / self.squares.square(), 1.0)
        errors = 0.5 * math.sqrt(2.0) / (3.0 / ratio - 2.0).clamp(min=1.0).sqrt()
        gram = None if self.gram is None else self.gram / scale
        estimate = RateEstimate(
            (self.squares / scale).sqrt().tolist(),
            torch.where(some, errors, 0.0).tolist(),
            self.probes,
            self.examples,
            None if gram is None else gram.numpy(),
        )
        if gram is None or learning_rates is None:
            return estimate
        rates = torch.tensor(learning_rates, dtype=torch.float64, device="cpu")
        parts = rates * (gram @ rates)
        total = float(parts.sum())
        if total <= 0:  # nothing moved; or noise outweighs what did, so its shares mean nothing
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


def _sum_of_known(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def sums_of_rows(
    rows: Tensor,
    examplewise: Tensor,
    *,
    elements: int,
    probes: int,
    learning_rates: Tensor | None = None,
    real: Tensor | None = None,
) -> ProjectionSums:
    """Return the sums over the projections of one or more probes on one part of a batch.

    A group whose rows belong to examples is squared row by row; of any other group only the sum
    over the rows of a probe has a meaning. So do products of two groups.

    Args:
        rows: Projections, float64 of shape [probes, B, groups].
        examplewise: Whether each group's rows belong to examples, bool [groups].
        elements: Number of output elements N of the part.
        probes: The number K that the measurement has on each part.
        learning_rates: Absolute learning rate of each group, float64 of shape [groups].
        real: Projections of the outputs' real change, float64 of shape [probes, B].
    """
    totals = rows.sum(1)
    changes = residuals = None
    if learning_rates is not None and real is not None:
        # Of groups that are known in sum alone, so is the whole.
        by_example = bool(examplewise.all())
        change = rows @ learning_rates if by_example else totals @ learning_rates
        moved = real if by_example else real.sum(1)
        changes = float(change.square().sum())
        residuals = float((moved - change).square().sum())
    flat = rows.flatten(0, 1)
    both = examplewise[:, None] & examplewise[None, :]
    return ProjectionSums(
        torch.where(examplewise, flat.square().sum(0), totals.square().sum(0)),
        torch.where(examplewise, flat.pow(4).sum(0), totals.pow(4).sum(0)),
        elements,
        rows.shape[1],
        probes,
        torch.where(both, flat.T @ flat, totals.T @ totals),
        changes,
        residuals,
    )
