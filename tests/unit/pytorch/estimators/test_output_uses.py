"""Parameters that act directly on the outputs: their rates are exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from fslr.torch import Update
from tests.measuring import ROUNDING, SIGMAS, measurable
from tests.models import Normalized


class Model(nn.Module):
    """A hidden layer, a head, and what happens to its result."""

    def __init__(self, finish: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 6)
        self.head = nn.Linear(6, 4)
        self.factor = nn.Parameter(torch.tensor([0.7]))
        self.finish = finish

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x))
        return self.finish(self.head(hidden), hidden)


def masked(y: Tensor, _: Tensor) -> Tensor:
    return y.masked_fill(torch.tensor([False, True, False, False]), -100.0)


def masked_in_place(y: Tensor, _: Tensor) -> Tensor:
    y[..., 1] = 0.0
    return y


# Whether each element of the output depends on one element of the head's result.
FINISHES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "the result itself": (lambda y, _: y, True),
    "reshaped": (lambda y, _: y.reshape(-1, 12).unsqueeze(1).view(8, 4, 3).transpose(1, 2), True),
    "part": (lambda y, _: y[:, 1:, :3], True),
    "cast and scaled": (lambda y, _: y.to(torch.float64) / 3 * torch.tensor(2.0), True),
    "capped": (lambda y, _: 2 * torch.tanh(y / 2), True),
    "masked": (masked, True),
    "a skip around it": (lambda y, h: y + h[..., :4].sin(), True),
    "a factor from below": (lambda y, h: y * h[..., 1:5], True),
    "masked in place": (masked_in_place, False),
    "mean": (lambda y, _: y.mean(1), False),
    "softmax": (lambda y, _: y.log_softmax(-1), False),
    "used twice": (lambda y, _: y + y.sin(), False),
    "expanded": (lambda y, _: y.unsqueeze(1) * torch.randn(2, 1, 1), False),
    "halves added": (lambda y, _: y[..., :2] + y[..., 2:], False),
    "halves joined": (lambda y, _: torch.cat(y.chunk(2, dim=-1), dim=1), False),
}


@pytest.mark.parametrize("case", FINISHES)
def test_the_rate_of_a_head_is_exact_where_the_output_is_its_result(case: str) -> None:
    torch.manual_seed(0)
    finish, is_exact = FINISHES[case]
    measured = measurable(Model(finish), torch.randn(8, 3, 5))
    estimator = measured.estimator(probes=1 if is_exact else 100, micro_batches=2)
    torch.manual_seed(1)
    estimate = estimator.estimate(measured.batch, measured.update)
    torch.manual_seed(1)
    exact = dict(zip(measured.names, measured.exact(), strict=True))
    rates = dict(zip(measured.names, estimate.unit_rates, strict=True))
    errors = dict(zip(measured.names, estimate.relative_errors, strict=True))
    for name in ("head.weight", "head.bias"):
        if is_exact:
            assert errors[name] == 0.0
            assert rates[name] == pytest.approx(exact[name], rel=1e-4)
        elif case != "expanded":  # it draws new numbers at each pass
            assert abs(math.log(rates[name] / exact[name])) < SIGMAS * errors[name]
            assert errors[name] > 0
    assert errors["inner.weight"] > 0


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (lambda: nn.Conv2d(3, 4, 3, padding=1), (8, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()), (8, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5)), (8, 3, 4)),
    ],
    ids=["convolution", "prelu", "layer norm"],
)
def test_any_last_function_is_exact(model: Callable[[], nn.Module], inputs: tuple[int]) -> None:
    torch.manual_seed(0)
    measured = measurable(model(), torch.randn(inputs))
    estimate = measured.estimator().estimate(measured.batch, measured.update)
    last = [i for i, name in enumerate(measured.names) if "." not in name or name[0] == "1"]
    for index in last:
        assert estimate.relative_errors[index] == 0
        assert estimate.unit_rates[index] == pytest.approx(measured.exact()[index], rel=1e-4)
    assert estimate.gram is not None
    for index, rate in enumerate(estimate.unit_rates):
        assert estimate.gram[index, index] == pytest.approx(rate**2, rel=1e-6)


def test_a_head_behind_batch_norm_is_exact_and_not_slow() -> None:
    torch.manual_seed(0)
    measured = measurable(Normalized(), torch.randn(8, 4))
    estimator = measured.estimator()
    estimate = estimator.estimate(measured.batch, measured.update)
    assert estimator.slow_groups.keys() == {"inner.weight"}
    assert estimate.relative_errors[1:] == [0.0, 0.0]


def tied_gpt() -> CharGPT:
    model = CharGPT(CharGPTConfig(vocabulary=23, width=32, context=12))
    model.head.weight = model.characters.weight
    return model


def test_tied_embeddings_are_unbiased_and_more_precise_than_by_probes_only() -> None:
    torch.manual_seed(0)
    measured = measurable(tied_gpt(), torch.randint(0, 23, (8, 12)))
    index = measured.names.index("characters.weight")
    exact = measured.exact()[index]
    estimator = measured.estimator(probes=4)
    estimates = [estimator.estimate(measured.batch, measured.update) for _ in range(60)]
    squares = torch.tensor([each.unit_rates[index] ** 2 for each in estimates])
    errors = torch.tensor([each.relative_errors[index] for each in estimates])
    spread = float(squares.std() / 2 / exact**2)
    assert float(squares.mean()) == pytest.approx(
        exact**2, rel=SIGMAS * 2 * spread / math.sqrt(len(estimates))
    )
    # Each error of 60 samples is within 1 / sqrt(120), and the stated ones vary.
    assert float(errors.square().mean().sqrt()) == pytest.approx(spread, rel=0.4)
    by_probes = 0.5 * math.sqrt(2 / (8 * 4))
    assert spread < 0.8 * by_probes


def test_a_tied_head_that_dominates_is_nearly_exact() -> None:
    torch.manual_seed(0)
    model = tied_gpt()
    nn.init.normal_(model.positions.weight, std=30.0)  # characters hardly matter
    measured = measurable(model, torch.randint(0, 23, (8, 12)))
    index = measured.names.index("characters.weight")
    estimate = measured.estimator().estimate(measured.batch, measured.update)
    assert estimate.unit_rates[index] == pytest.approx(measured.exact()[index], rel=0.05)
    assert 0 < estimate.relative_errors[index] < 0.05


def test_two_heads_that_share_a_weight_are_not_taken_for_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x) + self.head(x.flip(-1))
            return out

    torch.manual_seed(0)
    measured = measurable(Twice(), torch.randn(8, 4))
    estimate = measured.estimator(probes=200).estimate(measured.batch, measured.update)
    for rate, error, exact in zip(
        estimate.unit_rates, estimate.relative_errors, measured.exact(), strict=True
    ):
        assert error > 0
        assert abs(math.log(rate / exact)) < SIGMAS * error + ROUNDING


def test_only_the_total_rate_of_exact_groups_depends_on_probes() -> None:
    torch.manual_seed(0)
    measured = measurable(nn.Linear(5, 4), torch.randn(16, 5))
    rates = [0.1, 0.2]
    update = Update(lambda index: measured.updates[index], rates)
    totals = [
        measured.estimator(probes=100, seed=seed).estimate(measured.batch, update).total_rate
        for seed in range(3)
    ]
    (whole,) = measured.changes(rates)
    expected = float(whole.square().mean().sqrt())
    assert totals == pytest.approx([expected] * 3, rel=0.05)
