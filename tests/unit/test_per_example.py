"""The per_example estimator against the exact oracle, within stated error bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from fslr import MeasurementError
from fslr.torch import Batch, ModelGroups, PerExampleEstimator, exact_unit_rates, tensor_output
from fslr.torch.estimators.estimate import rates_of_rows

_SIGMAS = 5.0  # one group in two million falls outside by chance


class Tied(nn.Module):
    """Embedding and head share one tensor, both through their modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6, padding_idx=0)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.embed(x)))
        return logits


class CalledTwice(nn.Module):
    """One module acts twice, once with its output changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.out = nn.Linear(5, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x).relu_()
        out: Tensor = self.out(self.dropout(self.inner(input=x)))
        return out


class SequenceFirst(nn.Module):
    """Works on [T, B, D] inside, so leading dimensions are not examples."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.mix(torch.relu(self.up(x.transpose(0, 1))).cumsum(0))
        out: Tensor = self.head(inner.transpose(0, 1))
        return out


class Flattened(nn.Module):
    """Works on rows [B*T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(x.flatten(0, 1)))
        return out.view(*x.shape[:2], 2)


class PairsMixed(nn.Module):
    """Neighbouring examples see each other: no half of the batch sees the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.inner(x).view(-1, 2, 6)
        mixed = pairs.mean(1, keepdim=True) + 0.1 * pairs
        out: Tensor = self.head(torch.tanh(mixed.reshape(-1, 6)))
        return out


class TimeLeads(nn.Module):
    """Time steps in the place of examples, the later ones seeing the earlier."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.inner(x).cumsum(0)))
        return out


class EmbeddingOptions(nn.Module):
    """An embedding whose gradient is not the derivative of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5, padding_idx=0, scale_grad_by_freq=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.embed(x)))
        return out


class Normalized(nn.Module):
    """Batch norm in train mode: examples see each other, so the batch must not be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6, bias=False)  # a bias would be normalised away: rate zero
        self.statistics = nn.BatchNorm1d(6, affine=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.statistics(self.inner(x))))
        return out


def gpt(context: int, width: int = 32) -> CharGPT:
    return CharGPT(CharGPTConfig(vocabulary=23, width=width, context=context))


def characters(examples: int, context: int) -> Tensor:
    return torch.randint(0, 23, (examples, context))


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "gpt": lambda: (gpt(12), characters(8, 12)),
    "gpt, as many positions as examples": lambda: (gpt(8), characters(8, 8)),
    "gpt, odd batch": lambda: (gpt(12), characters(5, 12)),
    "gpt, one example": lambda: (gpt(12), characters(1, 12)),
    "tied": lambda: (Tied(), torch.randint(0, 11, (8, 7))),
    "called twice, dropout": lambda: (CalledTwice(), torch.randn(16, 5)),
    "sequence first": lambda: (SequenceFirst(), torch.randn(8, 6, 4)),
    "sequence first, square": lambda: (SequenceFirst(), torch.randn(6, 6, 4)),
    "pairs mixed": lambda: (PairsMixed(), torch.randn(16, 4)),
    "time leads": lambda: (TimeLeads(), torch.randn(16, 3, 4)),
    "embedding options": lambda: (EmbeddingOptions(), torch.randint(0, 7, (8, 5))),
    "batch norm": lambda: (Normalized(), torch.randn(8, 4)),
    "flattened": lambda: (Flattened(), torch.randn(8, 6, 4)),
}


def measurable(
    model: nn.Module, inputs: Tensor
) -> tuple[ModelGroups, Batch, dict[nn.Parameter, Tensor]]:
    """Return groups, batch and the unit updates of a first Adam step on random targets."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    groups = ModelGroups(model, optimizer)
    before = {group.parameter: group.parameter.detach().clone() for group in groups}
    outputs = model(inputs)
    nn.functional.mse_loss(outputs, torch.randn_like(outputs)).backward()
    optimizer.step()
    updates = {p: (p.detach() - start) / 1e-3 for p, start in before.items()}
    with torch.no_grad():
        for parameter, start in before.items():
            parameter.copy_(start)
    return groups, Batch.of_call((inputs,), {}), updates


def given(updates: dict[nn.Parameter, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what an estimator asks for each parameter's unit update."""
    by_id = {id(parameter): update for parameter, update in updates.items()}
    return lambda parameter: by_id[id(parameter)]


@pytest.mark.parametrize("case", CASES)
def test_it_converges_to_the_exact_rates(case: str) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[case]()
    groups, batch, updates = measurable(model, inputs)
    estimator = PerExampleEstimator(model, groups, output=tensor_output, probes=150)
    torch.manual_seed(1)  # the same dropout masks for both
    exact = exact_unit_rates(model, groups, batch, updates, tensor_output)
    torch.manual_seed(1)
    estimate = estimator.estimate(batch, given(updates))
    if "dropout" in case:
        # The checks of the first measurement are forward passes of their own, all from one state.
        torch.manual_seed(1)
        estimate = estimator.estimate(batch, given(updates))
    assert len(estimate.unit_rates) == len(exact) == len(groups)
    for group, rate, error, true in zip(
        groups, estimate.unit_rates, estimate.relative_errors, exact, strict=True
    ):
        assert abs(math.log(rate / true)) <= _SIGMAS * error, (group.name, rate, true, error)
        assert error <= 0.5 * math.sqrt(2 / 150) * 1.5, group.name


def test_the_stated_relative_error_is_the_spread_of_single_probes() -> None:
    torch.manual_seed(0)
    groups, batch, updates = measurable(model := gpt(12), characters(8, 12))
    estimator = PerExampleEstimator(model, groups, output=tensor_output, probes=1)
    estimates = [estimator.estimate(batch, given(updates)) for _ in range(150)]
    rates = torch.tensor([estimate.unit_rates for estimate in estimates])
    stated = torch.tensor([estimate.relative_errors for estimate in estimates]).mean(0)
    spread = rates.std(0) / rates.mean(0)
    # 150 samples give a spread to about 1 / sqrt(300) = 6 %; the mean of errors has a bias too.
    assert ((stated / spread) > 0.7).all()
    assert ((stated / spread) < 1.4).all()


def test_more_examples_make_the_error_smaller_as_stated() -> None:
    errors = []
    for examples in (4, 64):
        torch.manual_seed(0)
        groups, batch, updates = measurable(model := nn.Linear(6, 9), torch.randn(examples, 6))
        estimator = PerExampleEstimator(model, groups, output=tensor_output, probes=50)
        errors.append(estimator.estimate(batch, given(updates)).relative_errors[0])
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.3)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_equal_gaussian_rows_have_the_textbook_error(rows: int) -> None:
    torch.manual_seed(0)
    many = torch.randn(rows, 4000)
    rates, errors = rates_of_rows(many, probes=1, elements=1)
    assert (rates.square().mean() / rows).item() == pytest.approx(1.0, abs=0.1)
    assert errors.square().mean().sqrt().item() == pytest.approx(0.5 * (2 / rows) ** 0.5, rel=0.25)


def test_tiny_projections_do_not_underflow() -> None:
    rates, errors = rates_of_rows(torch.full((4, 1), 1e-30), probes=1, elements=4)
    assert rates.item() == pytest.approx(1e-30, rel=1e-5)
    assert 0 < errors.item() < 0.71


def test_a_parameter_that_did_not_move_has_the_rate_zero() -> None:
    groups, batch, updates = measurable(model := nn.Linear(4, 3), torch.randn(8, 4))
    updates[model.bias].zero_()
    estimator = PerExampleEstimator(model, groups, output=tensor_output)
    estimate = estimator.estimate(batch, given(updates))
    assert estimate.unit_rates[0] > 0
    assert (estimate.unit_rates[1], estimate.relative_errors[1]) == (0.0, 0.0)


def test_frozen_parameters_are_no_groups() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[0].weight.requires_grad_(False)
    groups, batch, updates = measurable(model, torch.randn(8, 4))
    estimator = PerExampleEstimator(model, groups, output=tensor_output)
    assert [group.name for group in groups] == ["0.bias", "1.weight", "1.bias"]
    assert all(rate > 0 for rate in estimator.estimate(batch, given(updates)).unit_rates)


def test_layers_without_a_local_map_are_named() -> None:
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Linear(4, 4), nn.PReLU())
    groups = ModelGroups(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(
        MeasurementError,
        match=r"2 module\(s\).*: 0 \(Conv1d\), 2 \(PReLU\); .*: Embedding, LayerNorm, Linear",
    ):
        PerExampleEstimator(model, groups, output=tensor_output)


def test_a_hook_of_the_user_that_changes_an_output_is_measured_too() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    model[0].register_forward_hook(lambda _module, _inputs, output: 3 * output)
    groups, batch, updates = measurable(model, torch.randn(16, 4))
    exact = exact_unit_rates(model, groups, batch, updates, tensor_output)
    estimator = PerExampleEstimator(model, groups, output=tensor_output, probes=100)
    estimate = estimator.estimate(batch, given(updates))
    assert estimate.unit_rates == pytest.approx(exact, rel=0.1)


def test_the_default_device_does_not_matter() -> None:
    groups, batch, updates = measurable(model := nn.Linear(4, 3), torch.randn(8, 4))
    estimator = PerExampleEstimator(model, groups, output=tensor_output)
    with torch.device("meta"):
        assert estimator.estimate(batch, given(updates)).unit_rates[0] > 0


class UsedWithoutCall(nn.Module):
    """The head's weight acts without its module being called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.inner(x), self.head.weight)


def test_a_parameter_that_acts_without_its_module_is_named() -> None:
    model = UsedWithoutCall()
    groups, batch, _ = measurable(model, torch.randn(8, 4))
    estimator = PerExampleEstimator(model, groups, output=tensor_output)
    with pytest.raises(MeasurementError, match=r"1 parameter\(s\) act .*: head\.weight; call"):
        estimator.estimate(batch, torch.ones_like)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda y: y.mean(), r"shape \(\), but the batch has 8 examples; select an output"),
        (lambda y: y.transpose(0, 1), r"shape \(3, 8\), but the batch has 8"),
        (lambda y: y.detach(), r"does not depend on any measured module; select another"),
        (lambda y: y * float("nan"), r"unit rate of 2 group\(s\) is not finite, first 'weight'"),
    ],
)
def test_an_output_that_cannot_be_measured_is_refused(
    output: Callable[[Tensor], Tensor], message: str
) -> None:
    groups, batch, updates = measurable(model := nn.Linear(4, 3), torch.randn(8, 4))
    with pytest.raises(MeasurementError, match=message):
        PerExampleEstimator(model, groups, output=output).estimate(batch, given(updates))


def test_a_result_that_is_no_tensor_asks_for_the_output() -> None:
    with pytest.raises(MeasurementError, match=r"returns a dict, not a tensor; say which"):
        tensor_output({})


def test_no_probe_is_no_measurement() -> None:
    model = nn.Linear(2, 2)
    groups = ModelGroups(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(MeasurementError, match="probes is 0; a measurement needs at least 1"):
        PerExampleEstimator(model, groups, output=tensor_output, probes=0)


def test_a_call_without_tensors_has_no_examples() -> None:
    with pytest.raises(MeasurementError, match="without a tensor argument"):
        Batch.of_call((1, "x"), {"n": torch.tensor(3)})


def test_a_batch_is_cut_into_chunks_of_nearly_equal_size_wherever_tensors_hide() -> None:
    inputs, mask = torch.arange(10).view(10, 1), torch.ones(7, 7)
    batch = Batch.of_call((inputs,), {"more": {"again": [inputs]}, "mask": mask})
    chunks = batch.chunks(4)
    assert [chunk.examples for chunk in chunks] == [2, 3, 3, 2]
    assert torch.equal(torch.cat([c.kwargs["more"]["again"][0] for c in chunks]), inputs)
    assert all(chunk.kwargs["mask"] is mask for chunk in chunks)
    assert len(batch.chunks(50)) == 10
