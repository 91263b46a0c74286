"""The per_example estimator against the exact oracle, within stated error bounds."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from fslr import MeasurementError
from fslr.torch import ModelGroups, PerExampleEstimator, Update
from tests.measuring import ROUNDING, SIGMAS, assert_converges, measurable
from tests.models import (
    Adapted,
    CalledTwice,
    EmbeddingOptions,
    FixedBatch,
    Flattened,
    Normalized,
    OwnFunction,
    PairsMixed,
    Parametrized,
    RawParameters,
    RelativeBias,
    SequenceFirst,
    Tied,
    TimeLeads,
    UsedWithoutCall,
)


def gpt(context: int, width: int = 32) -> CharGPT:
    return CharGPT(CharGPTConfig(vocabulary=23, width=width, context=context))


def characters(examples: int, context: int) -> Tensor:
    return torch.randint(0, 23, (examples, context))


# Each with the groups that take a slow route; "all": every group.
CASES: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor]], str]] = {
    "gpt": (lambda: (gpt(12), characters(8, 12)), ""),
    "gpt, as many positions as examples": (
        lambda: (gpt(8), characters(8, 8)),
        "positions.weight",
    ),
    "gpt, odd batch": (lambda: (gpt(12), characters(5, 12)), ""),
    "gpt, one example": (lambda: (gpt(12), characters(1, 12)), ""),
    "tied": (lambda: (Tied(), torch.randint(0, 11, (8, 7))), ""),
    "called twice, dropout": (lambda: (CalledTwice(), torch.randn(16, 5)), ""),
    "sequence first": (lambda: (SequenceFirst(), torch.randn(8, 6, 4)), ""),
    "sequence first, square": (lambda: (SequenceFirst(), torch.randn(6, 6, 4)), ""),
    "pairs mixed": (lambda: (PairsMixed(), torch.randn(16, 4)), "inner.weight inner.bias"),
    "fixed batch": (lambda: (FixedBatch(), torch.randn(16, 4)), ""),
    "time leads": (lambda: (TimeLeads(), torch.randn(16, 3, 4)), "inner.weight inner.bias"),
    "embedding options": (lambda: (EmbeddingOptions(), torch.randint(0, 7, (8, 5))), ""),
    "batch norm": (
        lambda: (Normalized(), torch.randn(8, 4)),
        "inner.weight",
    ),
    "flattened": (lambda: (Flattened(), torch.randn(8, 6, 4)), ""),
    "used without call": (lambda: (UsedWithoutCall(), torch.randn(8, 4)), ""),
    "raw parameters": (lambda: (RawParameters(), torch.randn(8, 5, 6)), "scale"),
    "bias as a mask": (lambda: (RelativeBias(masked=False), torch.randn(8, 5, 6)), ""),
    "bias as a mask, masked": (lambda: (RelativeBias(masked=True), torch.randn(8, 5, 6)), ""),
    "parametrized": (
        lambda: (Parametrized(), torch.randn(8, 4)),
        "inner.parametrizations.weight.original",
    ),
    "own autograd function": (lambda: (OwnFunction(), torch.randn(8, 4)), "scale"),
}


@pytest.mark.parametrize("case", CASES)
def test_rates_converge_to_the_exact_ones(case: str) -> None:
    torch.manual_seed(0)
    make, slow = CASES[case]
    measured = measurable(*make())
    assert_converges(measured)
    estimator = measured.estimator()
    estimator.estimate(measured.batch, measured.update)
    expected = measured.names if slow == "all" else slow.split()
    assert sorted(estimator.slow_groups) == sorted(expected)


def test_the_stated_relative_error_equals_the_spread_of_single_estimates() -> None:
    torch.manual_seed(0)
    case = measurable(gpt(12), characters(8, 12))
    estimator = case.estimator()
    estimates = [estimator.estimate(case.batch, case.update) for _ in range(150)]
    rates = torch.tensor([estimate.unit_rates for estimate in estimates])
    stated = torch.tensor([estimate.relative_errors for estimate in estimates]).mean(0)
    estimated = stated > 0  # the head's rates are exact
    stated, spread = stated[estimated], (rates.std(0) / rates.mean(0))[estimated]
    assert len(stated) == len(case.groups) - 2
    # A spread from 150 samples has an error of about 1 / sqrt(300) = 6 %; the mean error is biased.
    assert ((stated / spread) > 0.7).all()
    assert ((stated / spread) < 1.4).all()


def test_more_examples_reduce_the_stated_error() -> None:
    errors = []
    for examples in (4, 64):
        torch.manual_seed(0)
        inner = nn.Linear(6, 9)
        inner.weight.requires_grad_(False).zero_()
        case = measurable(nn.Sequential(inner, nn.Softmax(-1)), torch.randn(examples, 6))
        estimate = case.estimator(probes=50).estimate(case.batch, case.update)
        errors.append(estimate.relative_errors[0])  # the bias acts on all examples equally
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.3)


def test_micro_batches_give_the_same_rates() -> None:
    torch.manual_seed(0)
    case = measurable(gpt(12), characters(8, 12))
    exact = case.exact()
    estimate = case.estimator(probes=150, micro_batches=2).estimate(case.batch, case.update)
    assert estimate.examples == 8
    assert estimate.unit_rates == pytest.approx(exact, rel=0.15)
    assert max(estimate.relative_errors) < 0.5 * (2 / 8 / 150) ** 0.5 * 2


def test_sequences_of_a_different_length_need_no_new_checks() -> None:
    torch.manual_seed(0)
    case = measurable(gpt(12), characters(8, 12))
    estimator = case.estimator()
    estimator.estimate(case.batch, case.update)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = case.model.register_forward_pre_hook(count)
    shorter = measurable(case.model, characters(8, 7))
    calls = 0
    estimator.estimate(shorter.batch, shorter.update)
    handle.remove()
    assert calls == 1  # only the pass that is projected, and no pass for checks


def test_fewer_examples_need_no_new_checks() -> None:
    torch.manual_seed(0)
    case = measurable(gpt(12), characters(16, 8))
    estimator = case.estimator()
    estimator.measure(case.batch, case.update)
    estimator.measure(case.batch, case.update, max_examples=12)  # checks that batches may be cut
    examples = 0

    def count(_: object, args: tuple[Tensor, ...]) -> None:
        nonlocal examples
        examples += len(args[0])

    handle = case.model.register_forward_pre_hook(count)
    for limit, measured in ((12, 12), (5, 5), (8, 7)):  # a batch of 8 has two dimensions of size 8
        examples = 0
        sums = estimator.measure(case.batch, case.update, max_examples=limit)
        assert sums.examples == examples == measured
    handle.remove()


def test_few_examples_with_more_probes_are_passed_forward_once() -> None:
    torch.manual_seed(0)
    case = measurable(gpt(12), characters(32, 9))
    estimator = case.estimator()
    estimator.measure(case.batch, case.update, max_examples=8, repeats=4)  # finds out how
    sizes: list[int] = []
    handle = case.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    sums = estimator.measure(case.batch, case.update, max_examples=8, repeats=4)
    handle.remove()
    assert (sums.examples, sums.probes, estimator.repeats) == (8, 4, 4)
    assert sizes == [8]  # a quarter of the batch is measured in one part
    estimator.measure(case.batch, case.update)
    assert estimator.repeats == 1


def test_more_probes_on_few_examples_have_the_stated_error() -> None:
    torch.manual_seed(0)
    case = measurable(gpt(12), characters(32, 9))
    part = measurable(case.model, case.batch.args[0][:8])
    part.updates[:] = case.updates
    exact = torch.tensor(part.exact())
    estimator = case.estimator()
    names = [group.name for group in case.groups]
    found = [
        estimator.measure(case.batch, case.update, max_examples=8, repeats=4).estimate(names)
        for _ in range(40)
    ]
    rates = torch.tensor([estimate.unit_rates for estimate in found])
    stated = torch.tensor([estimate.relative_errors for estimate in found]).mean(0)
    moved = exact > 0
    bias = (rates.square().mean(0).sqrt() / exact - 1)[moved]
    assert float(bias.abs().max()) < 5 * float(stated[moved].max()) / math.sqrt(40)
    deviation = (rates / exact - 1).square().mean(0).sqrt()[moved]
    estimated = stated[moved] > 0  # the head's rate is exact
    assert float((deviation / stated[moved])[estimated].median()) == pytest.approx(1, rel=0.25)


def test_a_batch_that_may_not_be_cut_is_measured_once_with_the_usual_probes() -> None:
    case = measurable(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), torch.randn(32, 4))
    estimator = case.estimator()
    notices: list[str] = []
    estimator.on_notice = notices.append
    sums = estimator.measure(case.batch, case.update, max_examples=8, repeats=4)
    again = estimator.measure(case.batch, case.update, max_examples=8, repeats=4)
    assert (sums.examples, estimator.repeats) == (32, 1)
    assert again.probes == 8  # the groups before the normalization are slow
    assert notices == []  # the user set no limit of examples


def test_a_parameter_that_did_not_move_has_a_rate_of_zero() -> None:
    case = measurable(nn.Linear(4, 3), torch.randn(8, 4))
    case.updates[1].zero_()
    estimate = case.estimator().estimate(case.batch, case.update)
    assert estimate.unit_rates[0] > 0
    assert (estimate.unit_rates[1], estimate.relative_errors[1]) == (0.0, 0.0)


def test_parameters_that_start_at_zero_are_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    for parameter in model[2].parameters():
        nn.init.zeros_(parameter)
    case = measurable(model, torch.randn(8, 4))
    estimate = case.estimator(probes=100).estimate(case.batch, case.update)
    assert estimate.unit_rates[:2] == [0.0, 0.0]  # the layer after them has zero weights
    assert estimate.unit_rates[2:] == pytest.approx(case.exact()[2:], rel=0.15)


def test_an_adapter_that_starts_at_zero_is_measured_once_it_has_an_effect() -> None:
    torch.manual_seed(0)
    model = Adapted()
    case = measurable(model, torch.randn(16, 4))
    estimator = case.estimator(probes=100)
    for _ in range(2):
        first = estimator.estimate(case.batch, case.update).unit_rates
        assert first[0] == 0.0  # the other half of the adapter is zero
        assert first[1] == pytest.approx(case.exact()[1], rel=0.1)
    case.updates[0].normal_()
    nn.init.normal_(model.up.weight)
    for measurement in range(10):
        estimate = estimator.estimate(case.batch, case.update)
        exact = case.exact()
        for rate, error, expected in zip(
            estimate.unit_rates[:2], estimate.relative_errors, exact[:2], strict=False
        ):
            assert abs(math.log(rate / expected)) < SIGMAS * error + ROUNDING, measurement
        assert estimate.unit_rates[2:] == [0.0] * 4  # these are unused
    assert max(estimate.relative_errors[:2]) < 0.05  # measured per example again
    assert not estimator.slow_groups


def test_groups_without_effect_are_checked_less_and_less_often() -> None:
    case = measurable(Adapted(), torch.randn(16, 4))
    estimator = case.estimator()
    calls: list[None] = []
    handle = case.model.register_forward_hook(lambda *_: calls.append(None))
    for _ in range(100):
        estimator.estimate(case.batch, case.update)
    handle.remove()
    assert len(calls) <= 100 + 2 * 8  # checks at 0, 1, 2, 4, ... 64, each with one or two passes


def test_frozen_parameters_are_not_groups() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[0].weight.requires_grad_(False)
    case = measurable(model, torch.randn(8, 4))
    assert case.names == ["0.bias", "1.weight", "1.bias"]
    assert_converges(case)


def test_a_forward_hook_that_changes_an_output_is_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    model[0].register_forward_hook(lambda _module, _inputs, output: 3 * output)
    assert_converges(measurable(model, torch.randn(16, 4)))


def test_the_default_device_does_not_matter() -> None:
    case = measurable(nn.Linear(4, 3), torch.randn(8, 4))
    estimator = case.estimator()
    with torch.device("meta"):
        assert estimator.estimate(case.batch, case.update).unit_rates[0] > 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda y: y.detach(), r"does not depend on any group; select another"),
        (lambda y: y * float("nan"), r"unit rate of 2 group\(s\) is not finite, first 'weight'"),
    ],
)
def test_an_output_that_cannot_be_measured_is_refused(
    output: Callable[[Tensor], Tensor], message: str
) -> None:
    case = measurable(nn.Linear(4, 3), torch.randn(8, 4))
    case.output = output
    with pytest.raises(MeasurementError, match=message):
        case.estimator().estimate(case.batch, case.update)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 0}, "probes is 0; a measurement needs at least 1"),
        ({"micro_batches": 0}, "micro_batches is 0; it must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    model = nn.Linear(2, 2)
    groups = ModelGroups(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(MeasurementError, match=message):
        PerExampleEstimator(model, groups, **options)


def test_gradients_are_unchanged_by_a_measurement() -> None:
    case = measurable(gpt(12), characters(8, 12))
    for parameter in case.model.parameters():
        parameter.grad = torch.full_like(parameter, 2.5)
    case.estimator().estimate(case.batch, Update(lambda index: case.updates[index]))
    assert all((p.grad == 2.5).all() for p in case.model.parameters() if p.grad is not None)


def test_a_measurement_leaves_no_tensors_in_memory() -> None:
    case = measurable(gpt(12), characters(8, 12))
    estimator = case.estimator(probes=2, micro_batches=2)
    inner: list[weakref.ref[Tensor]] = []
    handle = case.model.blocks[0].register_forward_hook(  # type: ignore[index,union-attr]
        lambda _module, _inputs, output: inner.append(weakref.ref(output))
    )
    gc.disable()  # tensors that only the collector frees would fill the memory
    try:
        estimator.estimate(case.batch, case.update)
        alive = [reference for reference in inner if reference() is not None]
    finally:
        gc.enable()
        handle.remove()
    assert len(inner) == 4  # of the checks (and first chunk), the whole batch, a part, a chunk
    assert not alive
