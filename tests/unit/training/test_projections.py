"""Sums over projections: unbiased squares, stated errors, and parts that add up."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fslr import MeasurementError
from fslr.training.projections import ExactParts, ProjectionSums, sums_of_rows

_ONE = np.array([True])


def sums(rows: NDArray[np.float64]) -> ProjectionSums:
    """Return the sums over one group's rows, which belong to examples."""
    return sums_of_rows(rows[None, :, None], _ONE, elements=1, probes=1)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_equal_gaussian_rows_have_the_textbook_error(rows: int) -> None:
    rng = np.random.default_rng(0)
    estimates = [sums(rng.standard_normal(rows)).estimate(["w"]) for _ in range(2000)]
    squares = np.array([estimate.unit_rates[0] ** 2 for estimate in estimates])
    errors = np.array([estimate.relative_errors[0] for estimate in estimates])
    assert squares.mean() / rows == pytest.approx(1.0, abs=0.15)
    assert np.square(errors).mean() ** 0.5 == pytest.approx(0.5 * (2 / rows) ** 0.5, rel=0.25)


def test_tiny_projections_do_not_underflow() -> None:
    estimate = sums(np.full(4, 1e-30)).estimate(["w"])
    assert estimate.unit_rates[0] == pytest.approx(2e-30)
    assert 0 < estimate.relative_errors[0] < 0.71


def test_a_group_without_effect_has_the_rate_and_the_error_zero() -> None:
    estimate = sums(np.zeros(4)).estimate(["w"])
    assert (estimate.unit_rates, estimate.relative_errors) == ([0.0], [0.0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_projections_that_are_not_finite_are_refused_without_a_warning(value: float) -> None:
    with pytest.raises(MeasurementError, match=r"1 group\(s\) is not finite, first .w."):
        sums(np.array([1.0, value])).estimate(["w"])


def test_sums_of_the_parts_of_a_batch_add_up() -> None:
    rows = np.random.default_rng(0).standard_normal((2, 12, 3))
    one = np.array([True, False, True])
    rates = np.array([1.0, 2.0, 3.0])
    parts = [
        sums_of_rows(part, one, elements=4, probes=2, learning_rates=rates, real=part[..., 0])
        for part in (rows[:, :5], rows[:, 5:])
    ]
    both = parts[0] + parts[1]
    assert (both.elements, both.examples, both.probes) == (8, 12, 2)
    assert both.changes == pytest.approx((parts[0].changes or 0) + (parts[1].changes or 0))
    unknown = sums_of_rows(rows, one, elements=4, probes=2)
    assert (unknown.changes, unknown.residuals) == (None, None)
    assert (unknown + parts[0]).changes == (parts[0] + unknown).changes == parts[0].changes
    # For groups that are measured per example it does not matter where the batch was cut.
    whole = sums_of_rows(rows, one, elements=8, probes=2)
    np.testing.assert_allclose(both.squares[[0, 2]], whole.squares[[0, 2]])


def test_a_group_that_is_known_exactly_has_its_square_and_no_error() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 5, 2))
    exact = ExactParts([1], rows[..., 1:], np.array([7.0]))
    both = np.array([True, True])
    estimate = sums_of_rows(rows, both, elements=7, probes=3, exact=exact).estimate(["a", "b"])
    assert estimate.unit_rates[1] == pytest.approx(1.0)
    assert estimate.relative_errors[1] == 0.0 < estimate.relative_errors[0]
