"""Estimated rates converge to the exact ones, and rows belong to examples."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from fslr.jax.estimators import ExactEstimator, PerExampleEstimator
from tests.unit.jax.estimators.cases import CASES, assert_converges, mlp, normal, scanned_mlp


@pytest.mark.parametrize("name", CASES)
def test_rates_converge_to_the_exact_ones(name: str) -> None:
    assert_converges(CASES[name]())


def test_exact_rates_are_those_of_finite_differences() -> None:
    case = mlp()
    leaves, structure = jax.tree.flatten(case.params)
    apply = jax.jit(case.apply)
    expected = []
    for index, update in enumerate(jax.tree.leaves(case.updates)):
        sides = []
        for side in (1e-3, -1e-3):
            moved = [leaf + side * update if n == index else leaf for n, leaf in enumerate(leaves)]
            sides.append(apply(jax.tree.unflatten(structure, moved), case.batch))
        change = np.asarray(sides[0] - sides[1], np.float64) / 2e-3
        expected.append(float(np.sqrt(np.square(change).mean())))
    np.testing.assert_allclose(case.exact(), expected, rtol=2e-3)


def test_the_error_of_one_probe_is_that_of_as_many_probes_as_examples() -> None:
    case = mlp()
    estimator = case.estimator()
    estimate = estimator.measure(
        case.params, case.updates, case.batch, jax.random.key(0)
    ).estimate()
    by_name = dict(zip([g.name for g in estimator.groups], estimate.relative_errors, strict=True))
    assert 0 < by_name["in.kernel"] < 0.5 * (2 / len(case.batch)) ** 0.5 * 2
    assert by_name["out.kernel"] == by_name["out.bias"] == 0.0, "they act on the outputs"
    assert estimator.slow_groups == {}


def test_a_whole_step_has_its_total_rate_its_shares_and_its_linearity_error() -> None:
    case = scanned_mlp()
    rates = [1e-3 * (1 + n % 3) for n in range(len(case.groups))]
    leaves, structure = jax.tree.flatten(case.params)
    by_leaf = [np.zeros_like(leaf) for leaf in leaves]
    for group, rate in zip(case.groups, rates, strict=True):
        by_leaf[group.leaves[0]][... if group.layer is None else group.layer] = rate
    updates = jax.tree.leaves(case.updates)
    moved = [leaf + r * update for leaf, r, update in zip(leaves, by_leaf, updates, strict=True)]
    after = jax.tree.unflatten(structure, moved)
    found = []
    for estimator in (ExactEstimator(case.apply, case.groups), case.estimator(probes=200)):
        measured = estimator.measure(
            case.params, case.updates, case.batch, jax.random.key(1), params_after=after
        )
        found.append(measured.estimate(rates))
    exact, estimate = found
    assert exact.total_rate is not None
    assert exact.linearity_error is not None
    assert estimate.total_rate == pytest.approx(exact.total_rate, rel=0.1)
    assert estimate.linearity_error == pytest.approx(exact.linearity_error, rel=0.2)
    np.testing.assert_allclose(estimate.shares or [], exact.shares or [], atol=0.1)
    assert sum(estimate.shares or []) == pytest.approx(1.0)
    apply = jax.jit(case.apply)
    change = np.asarray(apply(after, case.batch) - apply(case.params, case.batch))
    real = float(np.sqrt(np.square(change).mean()))
    assert exact.total_rate == pytest.approx(real, rel=3 * exact.linearity_error)


def test_the_rms_of_weights_and_updates_is_that_of_each_group() -> None:
    case = scanned_mlp()
    measured = case.estimator().measure(case.params, case.updates, case.batch, jax.random.key(0))
    estimate = measured.estimate()
    names = [group.name for group in case.groups]
    place = names.index("layers.1.kernel")
    for found, tree in ((estimate.weight_rms, case.params), (estimate.update_rms, case.updates)):
        assert found is not None
        expected = np.sqrt(np.square(tree["layers"]["kernel"][1]).mean())
        assert found[place] == pytest.approx(float(expected), rel=1e-5)


def test_another_axis_of_the_outputs_may_count_the_examples() -> None:
    case = mlp()
    leading = case.estimator()
    trailing = PerExampleEstimator(
        lambda params, batch: case.apply(params, batch).T, case.groups, output_axis=1
    )
    found = [
        estimator.measure(case.params, case.updates, case.batch, jax.random.key(2)).estimate()
        for estimator in (leading, trailing)
    ]
    np.testing.assert_allclose(found[0].unit_rates, found[1].unit_rates, rtol=1e-5)
    assert found[0].examples == found[1].examples == 8


def test_one_example_is_measured_with_one_degree_of_freedom() -> None:
    case = mlp()
    case.batch = normal(6, 1, 5)
    assert_converges(case)
