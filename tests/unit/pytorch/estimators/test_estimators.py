"""The estimators besides per_example, and the estimate of a whole step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.torch import ESTIMATORS, Estimator, MeasuringOptions, RateEstimate, Update
from fslr.torch.estimators import FullEstimator, IidEstimator, KroneckerEstimator
from fslr.torch.estimators.gradient import GradientEstimator
from tests.measuring import ROUNDING, SIGMAS, Measurable, measurable
from tests.models import EmbeddingOptions, Normalized

_PROBES = 400


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))


def small() -> Measurable:
    torch.manual_seed(0)
    return measurable(net(), torch.randn(8, 5))


def estimate_of(case: Measurable, name: str, probes: int) -> RateEstimate:
    estimator: Estimator = ESTIMATORS[name](case.model, case.groups, probes=probes)
    return estimator.estimate(case.batch, case.update)


@pytest.mark.parametrize("name", ["full", "per_example"])
@pytest.mark.parametrize("kind", ["small", "embedding options"])
def test_unbiased_estimators_converge_to_the_exact_rates(name: str, kind: str) -> None:
    torch.manual_seed(0)
    case = small()
    if kind == "embedding options":
        case = measurable(EmbeddingOptions(), torch.randint(0, 7, (8, 5)))
    estimate = estimate_of(case, name, _PROBES)
    for rate, error, exact in zip(
        estimate.unit_rates, estimate.relative_errors, case.exact(), strict=True
    ):
        assert abs(math.log(rate / exact)) < SIGMAS * error + ROUNDING
        assert error < 0.5 * math.sqrt(2 / _PROBES) * 1.5


def test_iid_and_kronecker_are_biased_and_full_is_not() -> None:
    # This is why per_example is the default. Errors of 400 probes are far below these biases.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 4))
    case = measurable(model, torch.rand(8, 2, 5, 5))
    exact = case.exact()
    deviations = {
        name: max(
            abs(math.log(rate / expected))
            for rate, expected in zip(
                estimate_of(case, name, _PROBES).unit_rates, exact, strict=True
            )
        )
        for name in ESTIMATORS
    }
    assert deviations["full"] < 0.2
    assert deviations["per_example"] < 0.1
    assert deviations["iid"] > 0.4
    assert deviations["kronecker"] > 0.2


def slow_kronecker(*products: Tensor) -> float:
    """Compute the formula with plain loops over dimensions; each sum is averaged over probes."""
    result, whole, dimensions = 1.0, 0.0, products[0].dim()
    for dimension in range(dimensions):
        sums = [float(p.double().sum(dimension).square().sum()) for p in products]
        result *= sum(sums) / len(products)
    whole = sum(float(p.double().square().sum()) for p in products) / len(products)
    return result / whole ** (dimensions - 1)


def square_of(kind: type[GradientEstimator], *products: Tensor) -> float:
    terms = torch.stack([kind.terms(product) for product in products])
    return float(kind.square(terms.mean(0)))


@pytest.mark.parametrize("shape", [(6,), (4, 3), (4, 3, 2, 2)])
def test_estimates_equal_those_of_slow_implementations(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    product = torch.randn(shape)
    total = sum(float(x) for x in product.flatten())
    squares = sum(float(x) ** 2 for x in product.flatten())
    assert square_of(FullEstimator, product) == pytest.approx(total**2, rel=1e-4)
    assert square_of(IidEstimator, product) == pytest.approx(squares, rel=1e-4)
    assert square_of(KroneckerEstimator, product) == pytest.approx(
        slow_kronecker(product), rel=1e-4
    )
    probes = [torch.randn(shape) for _ in range(5)]
    assert square_of(KroneckerEstimator, *probes) == pytest.approx(
        slow_kronecker(*probes), rel=1e-4
    )


def test_kronecker_averages_its_sums_over_probes_before_it_divides() -> None:
    torch.manual_seed(0)
    case = small()
    estimator = KroneckerEstimator(case.model, case.groups)
    singles = [estimator.estimate(case.batch, case.update) for _ in range(40)]
    combined = estimate_of(case, "kronecker", 40)
    matrices = {i for i, group in enumerate(case.groups) if group.parameter.dim() > 1}
    assert matrices
    for i, rate in enumerate(combined.unit_rates):
        quotients = math.sqrt(sum(s.unit_rates[i] ** 2 for s in singles) / len(singles))
        # A vector has only one sum, so the results are equal.
        assert (rate == pytest.approx(quotients, rel=1e-3)) == (i not in matrices)


def test_kronecker_handles_scalars_zeros_and_tiny_values() -> None:
    assert square_of(KroneckerEstimator, torch.tensor(-3.0)) == 9.0
    assert square_of(KroneckerEstimator, torch.zeros(3, 2)) == 0.0
    tiny = torch.full((3, 2), 1e-12)
    assert square_of(KroneckerEstimator, tiny) == pytest.approx(3.6e-23)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_probes_share_one_forward_pass(name: str) -> None:
    case = small()
    estimator = ESTIMATORS[name](case.model, case.groups, probes=5)
    estimator.estimate(case.batch, case.update)  # the first estimate of per_example makes checks
    calls: list[None] = []
    handle = case.model.register_forward_hook(lambda *_: calls.append(None))
    estimator.estimate(case.batch, case.update)
    handle.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_output_that_depends_on_no_group_is_refused(name: str) -> None:
    case = small()
    estimator = ESTIMATORS[name](case.model, case.groups, output=lambda y: y.detach())
    with pytest.raises(MeasurementError, match="does not depend on any group; select another"):
        estimator.estimate(case.batch, case.update)


def test_an_unknown_estimator_is_an_error_that_lists_the_known_ones() -> None:
    case = small()
    with pytest.raises(
        MeasurementError, match=r"estimator is 'exact'; it must be one of per_example, "
    ):
        MeasuringOptions(estimator="exact").estimator_of(case.model, case.groups)


def stepped(case: Measurable, learning_rates: list[float]) -> Update:
    """Return the step with learning rates and with the weights after it."""

    @contextmanager
    def applied() -> Iterator[None]:
        before = [group.parameter.detach().clone() for group in case.groups]
        with torch.no_grad():
            for group, learning_rate, update in zip(
                case.groups, learning_rates, case.updates, strict=True
            ):
                group.parameter.add_(learning_rate * update)
        try:
            yield
        finally:
            with torch.no_grad():
                for group, start in zip(case.groups, before, strict=True):
                    group.parameter.copy_(start)

    def make() -> AbstractContextManager[None]:
        return applied()

    return Update(lambda index: case.updates[index], learning_rates, make)


# Models whose groups are all measured per example, and with groups whose rows are summed.
MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "per example": lambda: (net(), torch.randn(8, 5)),
    "summed": lambda: (Normalized(), torch.randn(8, 4)),
}
# A batch whose examples interact is never cut.
_KINDS_AND_PARTS = [("per example", 1), ("per example", 2), ("summed", 1)]


@pytest.mark.parametrize(("kind", "micro_batches"), _KINDS_AND_PARTS)
def test_gram_matrix_total_rate_and_shares_equal_those_of_the_outputs(
    kind: str, micro_batches: int
) -> None:
    torch.manual_seed(0)
    case = measurable(*MODELS[kind]())
    rates = [0.01 * (1 + i) for i in range(len(case.groups))]
    probes = 200 if kind == "per example" else 1600  # the same number of rows in both
    estimator = case.estimator(probes=probes, micro_batches=micro_batches)
    estimate = estimator.estimate(case.batch, stepped(case, rates))
    changes = torch.stack([change.flatten() for change in case.changes()])
    exact = changes @ changes.T / changes.shape[1]
    scale = exact.diagonal().sqrt()
    # A correlation from n rows has a standard error of at most 1 / sqrt(n).
    rows = 1600
    assert estimate.gram is not None
    assert (
        (torch.from_numpy(estimate.gram) - exact) / scale / scale[:, None]
    ).abs().max() < 6 / math.sqrt(rows)
    (whole,) = case.changes(rates)
    total = float(whole.square().mean().sqrt())
    assert estimate.total_rate == pytest.approx(total, rel=4 / math.sqrt(rows))
    weights = torch.tensor(rates, dtype=torch.float64)
    shares = (weights * (exact @ weights) / total**2).tolist()
    assert estimate.shares == pytest.approx(shares, abs=8 / math.sqrt(rows))
    assert sum(estimate.shares or []) == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "micro_batches"), _KINDS_AND_PARTS)
def test_the_linearity_error_equals_the_relative_nonlinear_change(
    kind: str, micro_batches: int
) -> None:
    torch.manual_seed(0)
    case = measurable(*MODELS[kind]())
    found = []
    for size in (0.2, 0.02):
        rates = [size] * len(case.groups)
        step = stepped(case, rates)
        (linear,) = case.changes(rates)
        with torch.no_grad():
            before = case.model(*case.batch.args)
            assert step.applied is not None
            with step.applied():
                after = case.model(*case.batch.args)
        nonlinear = float((after - before - linear).square().mean().sqrt())
        exact = nonlinear / float(linear.square().mean().sqrt())
        estimator = case.estimator(probes=200, micro_batches=micro_batches)
        estimate = estimator.estimate(case.batch, step)
        assert estimate.linearity_error == pytest.approx(
            exact, rel=0.4 if micro_batches > 1 else 0.15
        )
        found.append(exact)
    assert found[0] > 5 * found[1]  # smaller steps are more linear


def test_a_step_that_moves_nothing_has_no_shares() -> None:
    case = small()
    estimate = case.estimator().estimate(case.batch, stepped(case, [0.0] * 4))
    assert (estimate.total_rate, estimate.shares, estimate.linearity_error) == (0.0, None, None)


def test_without_learning_rates_there_is_no_total_rate() -> None:
    estimate = estimate_of(small(), "per_example", 1)
    assert estimate.gram is not None
    assert (estimate.total_rate, estimate.shares, estimate.linearity_error) == (None, None, None)
