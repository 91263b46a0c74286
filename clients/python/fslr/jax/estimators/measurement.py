"""The result of one measurement: arrays on the device, and the estimate that the host makes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import Array

from fslr.errors import MeasurementError
from fslr.training.estimate import RateEstimate
from fslr.training.projections import ExactParts, Floats, ProjectionSums, sums_of_rows


def _on_host(array: Array) -> Floats:
    """Return an array as float64 on the host; waits for the device."""
    if not array.is_fully_addressable and not array.is_fully_replicated:
        from jax.experimental import multihost_utils  # noqa: PLC0415 - only for several processes

        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array, dtype=np.float64)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "exact_rows", "exact_squares", "real", "rounding"],
    meta_fields=["examplewise", "exact_groups"],
)
@dataclass(frozen=True, slots=True)
class Projections:
    """Projections of the groups' changes of the outputs on some probes.

    Attributes:
        rows: Projection of the change by each group, for each probe and example; float32 of shape
            [probes, B, groups].
        exact_rows: Projections of the parts whose squares are known, [probes, B, parts].
        exact_squares: Squares of these parts, summed over the output elements, [parts].
        real: Projections of the real change of the outputs, [probes, B]; None: unknown.
        rounding: Expected square of the projection of the real change's rounding errors, a scalar.
        examplewise: Whether each group's rows belong to examples. If not, only the sum over a
            probe's rows is meaningful.
        exact_groups: The group of each part whose square is known.
    """

    rows: Array
    exact_rows: Array
    exact_squares: Array
    real: Array | None
    rounding: Array
    examplewise: tuple[bool, ...]
    exact_groups: tuple[int, ...]

    def sums(
        self, elements: float, scales: Floats, learning_rates: Sequence[float] | None
    ) -> ProjectionSums:
        """Return the sums over the projections.

        Args:
            elements: Number of output elements, or the sum of their weights.
            scales: What each group's unit update was divided by.
            learning_rates: Learning rate of each group; None: unknown.
        """
        exact = None
        if self.exact_groups:
            groups = list(self.exact_groups)
            exact = ExactParts(
                groups,
                _on_host(self.exact_rows) * scales[groups],
                _on_host(self.exact_squares) * np.square(scales[groups]),
            )
        return sums_of_rows(
            _on_host(self.rows) * scales,
            np.array(self.examplewise),
            elements=elements,
            probes=self.rows.shape[0],
            learning_rates=None if learning_rates is None else np.array(learning_rates),
            real=None if self.real is None else _on_host(self.real),
            exact=exact,
            rounding=float(_on_host(self.rounding)),
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["squares", "gram", "real_products", "real_square"],
    meta_fields=["examples"],
)
@dataclass(frozen=True, slots=True)
class ExactChanges:
    """Exact inner products of the groups' changes of the outputs.

    Attributes:
        squares: Square of each group's change, summed over the output elements, [groups].
        gram: Inner products of the changes, [groups, groups]; None: not computed.
        real_products: Inner product of each change with the real change, [groups]; None: unknown.
        real_square: Square of the real change, a scalar; None: unknown.
        examples: Number of examples B.
    """

    squares: Array
    gram: Array | None
    real_products: Array | None
    real_square: Array | None
    examples: int

    def sums(
        self, elements: float, scales: Floats, learning_rates: Sequence[float] | None
    ) -> ProjectionSums:
        """Return the sums, as those of one probe without noise.

        Args:
            elements: Number of output elements, or the sum of their weights.
            scales: What each group's unit update was divided by.
            learning_rates: Learning rate of each group; None: unknown.
        """
        squares = _on_host(self.squares) * np.square(scales)
        gram = None if self.gram is None else _on_host(self.gram) * np.outer(scales, scales)
        changes = residuals = None
        if gram is not None and learning_rates is not None and self.real_square is not None:
            assert self.real_products is not None  # noqa: S101 - known together
            in_force = np.array(learning_rates)
            changes = max(0.0, float(in_force @ gram @ in_force))
            both = float(in_force @ (_on_host(self.real_products) * scales))
            residuals = max(0.0, float(_on_host(self.real_square)) - 2 * both + changes)
        return ProjectionSums(
            squares, np.zeros_like(squares), elements, self.examples, 1, gram, changes, residuals
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["content", "elements", "weight_rms", "update_rms", "scales"],
    meta_fields=["names", "slow"],
)
@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement; a pytree, so a jitted training step may return it.

    Nothing waits for the device before :meth:`sums` or :meth:`estimate` is called.

    Attributes:
        content: What was measured.
        elements: Number of output elements N, or the sum of their weights; a scalar.
        weight_rms: RMS of each group's weights, [groups].
        update_rms: RMS of each group's unit update, [groups].
        scales: What each group's unit update was divided by, [groups]; None: by 1.
        names: The groups' names.
        slow: The groups that took a slow route, with the reason for each.
    """

    content: Projections | ExactChanges
    elements: Array
    weight_rms: Array
    update_rms: Array
    scales: Array | None
    names: tuple[str, ...]
    slow: tuple[tuple[str, str], ...] = ()

    def sums(self, learning_rates: Sequence[float] | None = None) -> ProjectionSums:
        """Return the sums over the projections; waits for the device.

        Args:
            learning_rates: Learning rate of each group, multiplier included; None: unknown.

        Raises:
            MeasurementError: A weight of the mask is negative or not finite.
        """
        elements = float(_on_host(self.elements))
        if math.isnan(elements):
            raise MeasurementError(
                "the mask has weights that are negative or not finite; weights must be finite and "
                "at least 0. For labels in which -100 is ignored, use a function: "
                "mask=lambda batch, outputs: batch['labels'] != -100"
            )
        scales = np.ones(len(self.names)) if self.scales is None else _on_host(self.scales)
        return self.content.sums(elements, scales, learning_rates)

    def estimate(self, learning_rates: Sequence[float] | None = None) -> RateEstimate:
        """Return the unit rates; waits for the device.

        Args:
            learning_rates: Learning rate of each group, multiplier included. With them the estimate
                has the total rate, the shares, and the linearity error if the weights after the
                step were passed. None: unknown.

        Raises:
            MeasurementError: A weight of the mask is negative or not finite, no output element
                counts, or a rate is not finite.
        """
        estimate = self.sums(learning_rates).estimate(self.names, learning_rates)
        rms: dict[str, Any] = {
            "weight_rms": _on_host(self.weight_rms).tolist(),
            "update_rms": _on_host(self.update_rms).tolist(),
        }
        return replace(estimate, **rms)
