"""Masks: rates are weighted over the output elements that count."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.torch import ESTIMATORS, MeasuringOptions, Recorder
from fslr.torch.model.mask import Mask
from fslr.training.summaries import mask_label
from tests.measuring import ROUNDING, SIGMAS, Measurable, assert_converges, measurable

EXAMPLES, LENGTH, VOCABULARY = 8, 6, 5
LENGTHS = torch.tensor([6, 1, 3, 2, 5, 1, 0, 4])


class Padded(nn.Module):
    """Attends to what is not padding; the outputs at padding are far larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.mixed = nn.Linear(8, 8)
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        x = self.embedding(tokens)
        scores = x @ x.mT / 8**0.5
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask[:, None].bool(), -1e9)
            x = torch.where(attention_mask[..., None].bool(), x, 30 * x)
        return self.head(x + torch.tanh(self.mixed(scores.softmax(-1) @ x)))


def padding() -> Tensor:
    return (torch.arange(LENGTH) < LENGTHS[:, None]).long()


def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (EXAMPLES, LENGTH))


def by_function(inputs: Any, result: Tensor) -> Any:
    assert result.shape[:2] == inputs["attention_mask"].shape
    return inputs["attention_mask"].bool()


def weighted(inputs: Any, result: Tensor) -> Any:
    weights = torch.linspace(0.0, 2.0, VOCABULARY, device=result.device)
    return inputs["attention_mask"][..., None] * weights


def padded(mask: Mask) -> Measurable:
    torch.manual_seed(0)
    return measurable(Padded(), {"tokens": tokens(), "attention_mask": padding()}, mask=mask)


def expected_rates(case: Measurable, weights: Tensor) -> list[float]:
    """Return weighted rates by finite differences, with the formula written out."""
    model = case.model
    rates: list[float] = []
    for index, group in enumerate(case.groups):
        sides = []
        start = group.parameter.detach().clone()
        with torch.no_grad():
            for sign in (1, -1):
                group.parameter.copy_(start + sign * 1e-3 * case.updates[index])
                sides.append(model(**case.batch.kwargs))
            group.parameter.copy_(start)
        squares = ((sides[0] - sides[1]) / 2e-3).square()
        counted = weights.expand(squares.shape)
        rates.append(math.sqrt(float((counted * squares).sum() / counted.sum())))
    return rates


@pytest.mark.parametrize(
    ("mask", "weights"),
    [
        ("attention_mask", padding()[..., None].float()),
        (by_function, padding()[..., None].float()),
        (weighted, padding()[..., None] * torch.linspace(0.0, 2.0, VOCABULARY)),
        (lambda _inputs, _result: None, torch.ones(1)),
    ],
    ids=["key", "function", "weights", "None"],
)
def test_exact_rates_are_weighted_over_what_counts(mask: Mask, weights: Tensor) -> None:
    case = padded(mask)
    assert case.exact() == pytest.approx(expected_rates(case, weights), rel=0.01)


@pytest.mark.parametrize("mask", ["attention_mask", weighted])
def test_rates_per_example_converge_to_the_exact_ones(mask: Mask) -> None:
    case = padded(mask)
    assert_converges(case)
    plain = padded(None).exact()
    ratios = [p / m for p, m in zip(plain, case.exact(), strict=True)]
    assert max(ratios) > 1.5 * min(ratios), "here a mask matters for multipliers"


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_parts_of_a_batch_with_unequal_counts_have_the_rates_of_the_whole(
    micro_batches: int,
) -> None:
    case = padded("attention_mask")
    estimator = case.estimator(probes=100, micro_batches=micro_batches)
    estimate = estimator.estimate(case.batch, case.update)
    for rate, error, exact in zip(
        estimate.unit_rates, estimate.relative_errors, case.exact(), strict=True
    ):
        assert abs(math.log(rate / exact)) < SIGMAS * error + ROUNDING
        assert error < 0.06


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_mask_has_the_effect_of_leaving_out_what_it_leaves_out(name: str) -> None:
    # Fewer examples need no mask.
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)), torch.randn(8, 5)
    few = measurable(model, inputs[:3])
    case = measurable(model, inputs, mask=lambda _inputs, _result: torch.arange(8) < 3)
    probes = 150
    rates = []
    for each in (few, case):
        estimator = ESTIMATORS[name](each.model, each.groups, mask=each.mask, probes=probes)
        each.updates = few.updates
        rates.append(estimator.estimate(each.batch, each.update).unit_rates)
    assert rates[1] == pytest.approx(rates[0], rel=0.5 * math.sqrt(2 / probes) * SIGMAS * 1.5)


def test_outputs_that_do_not_count_may_be_infinite() -> None:
    class Blanked(Padded):
        def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
            assert attention_mask is not None
            logits = super().forward(tokens, attention_mask)
            return logits.masked_fill(attention_mask[..., None] == 0, -math.inf)

    torch.manual_seed(0)
    model = Blanked()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    options = MeasuringOptions(mask="attention_mask", probes=200)
    recorder = Recorder(model, optimizer, every=1, options=options)
    batch = {"tokens": tokens(), "attention_mask": padding()}
    model(**batch)[padding().bool()].square().mean().backward()
    optimizer.step()
    estimate = recorder.estimate
    assert estimate is not None
    assert estimate.linearity_error is not None
    assert estimate.linearity_error < 0.1


class OfMapping(nn.Module):
    """Takes one argument that holds everything."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Padded()

    def forward(self, batch: dict[str, Tensor]) -> Any:
        return self.inner(batch["tokens"], batch["keep"])


def test_a_key_may_be_one_of_a_mapping_or_of_the_keywords() -> None:
    torch.manual_seed(0)
    words = tokens()
    batch = {"tokens": words, "keep": padding()}
    nested = measurable(OfMapping(), (batch,), mask="keep")
    named = {"tokens": words, "attention_mask": padding(), "counts": padding()}
    direct = measurable(Padded(), named, mask="counts")
    nested.updates = direct.updates
    nested.model.get_submodule("inner").load_state_dict(direct.model.state_dict())
    assert nested.exact() == pytest.approx(direct.exact(), rel=1e-4)


class Wrapper(nn.Module):
    """Passes on whatever it is called with."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def test_a_key_of_a_mapping_is_found_behind_a_wrapper() -> None:
    torch.manual_seed(0)
    batch = {"tokens": tokens(), "keep": padding()}
    inner = OfMapping()
    wrapped = measurable(Wrapper(inner), (batch,), mask="keep")
    direct = measurable(inner, (batch,), mask="keep")
    wrapped.updates = direct.updates
    assert wrapped.exact() == pytest.approx(direct.exact(), rel=1e-4)


def raising(inputs: Any, _result: Any) -> Any:
    return inputs["nothing"]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("labels", r"mask='labels' does not exist in the batch; .* 'tokens', 'attention_mask'"),
        (raising, r"'raising' raised KeyError\('nothing'\); it is called with the inputs \('tok"),
        (lambda _inputs, _result: 3, r"'<lambda>' is a int; it must be a tensor of weights"),
        (
            lambda _inputs, _result: torch.ones(8, 4),
            r"has shape \(8, 4\) .* output has shape \(8, 6, 5\); .* leading dimensions",
        ),
        (lambda _inputs, result: result[..., None], r"has shape \(\d, 6, 5, 1\)"),
        (
            lambda inputs, _result: torch.where(inputs["attention_mask"] == 0, -100, 1),
            r"has weights down to -100 .*mask=lambda inputs, result: inputs\['labels'\] != -100",
        ),
        (lambda _inputs, _result: torch.full((8, 1), math.nan), "weights must be finite"),
        (
            lambda inputs, _result: inputs["attention_mask"] * 0,
            r"each output element of the 8 measured example\(s\) the weight 0",
        ),
    ],
)
@pytest.mark.parametrize("name", ["per_example", "full"])
def test_a_mask_that_cannot_be_used_is_an_error(name: str, mask: Mask, message: str) -> None:
    case = padded(None)
    estimator = ESTIMATORS[name](case.model, case.groups, mask=mask)
    with pytest.raises(MeasurementError, match=message):
        estimator.estimate(case.batch, case.update)


@pytest.mark.parametrize(
    ("mask", "label"),
    [
        (None, ""),
        ("attention_mask", "attention_mask"),
        (by_function, "by_function"),
        (functools.partial(by_function, result=torch.ones(1)), "by_function"),
        (Padded().forward, "Padded.forward"),
        (lambda _inputs, _result: None, "<lambda>"),
    ],
)
def test_a_mask_is_known_by_its_key_or_by_the_functions_name(mask: Any, label: str) -> None:
    assert mask_label(mask) == label
