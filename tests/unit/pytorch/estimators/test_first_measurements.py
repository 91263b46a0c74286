"""What the checks of a first measurement cost, and what they find."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.architectures import ARCHITECTURES
from benchmarks.char_gpt import CharGPT, CharGPTConfig
from tests.measuring import assert_converges, measurable
from tests.models import Normalized, PairsMixed

_EXAMPLES = 32


class Passes:
    """Counts the examples of forward passes and the backward passes of a model."""

    def __init__(self, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.examples, self.backwards = 0, 0
        grad = torch.autograd.grad

        def seen(_model: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.examples += len(args[0])

        def counted(outputs: Tensor, *args: object, **options: object) -> object:
            self.backwards += len(outputs)
            return grad(outputs, *args, **options)  # type: ignore[call-overload]

        model.register_forward_pre_hook(seen)
        monkeypatch.setattr(torch.autograd, "grad", counted)


def gpt() -> nn.Module:
    return CharGPT(CharGPTConfig(vocabulary=23, width=32, context=12))


def tokens() -> Tensor:
    return torch.randint(0, 23, (_EXAMPLES, 12))


# Examples in forward and backward passes of a first and of a later measurement.
COSTS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], float, float, float, float]]
COSTS = {
    # Checks: 4 examples traced, the whole batch and a quarter without gradients, two backwards.
    "gpt": (gpt, tokens, 2.4, 1.3, 1.0, 1.0),
    # Batch norm needs several probes on the whole batch; it is not cut, which 4 examples show.
    "batch norm": (Normalized, lambda: torch.randn(_EXAMPLES, 4), 1.4, 4.4, 1.0, 8.0),
    "pairs": (PairsMixed, lambda: torch.randn(_EXAMPLES, 4), 2.8, 1.5, 1.0, 1.0),
}


@pytest.mark.parametrize("case", COSTS)
def test_the_checks_take_few_passes(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    make, inputs, *limits = COSTS[case]
    measured = measurable(make(), inputs())
    estimator = measured.estimator(micro_batches=4)
    passes = Passes(measured.model, monkeypatch)
    for forwards, backwards in (limits[:2], limits[2:]):
        passes.examples = passes.backwards = 0
        estimator.estimate(measured.batch, measured.update)
        assert passes.examples <= forwards * _EXAMPLES
        assert passes.backwards <= backwards * _EXAMPLES


def test_the_first_measurement_takes_fewer_probes_of_slow_groups() -> None:
    torch.manual_seed(0)
    measured = measurable(Normalized(), torch.randn(_EXAMPLES, 4))
    estimator = measured.estimator()
    probes = [estimator.estimate(measured.batch, measured.update).probes for _ in range(3)]
    assert probes == [3, 8, 8]


class LateMixed(nn.Module):
    """The examples from ``first`` on depend on the whole batch, as a few outputs show."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        late = torch.arange(len(x)) >= self.first
        out: Tensor = self.head(torch.tanh(hidden + late[:, None] * hidden.mean(0)))
        return out


class Noisy(nn.Module):
    """Adds random numbers that are no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.inner(x) + torch.rand(len(x), 6)))
        return out


def test_a_first_measurement_of_a_part_needs_one_pass_on_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    measured = measurable(gpt(), tokens())
    estimator = measured.estimator(micro_batches=4)
    passes = Passes(measured.model, monkeypatch)
    sums = estimator.measure(measured.batch, measured.update, max_examples=8, repeats=4)
    assert (sums.examples, estimator.repeats) == (8, 4)
    # The whole batch, 4 examples of the checks, 4 in the middle, and the 8 that are measured.
    assert passes.examples == _EXAMPLES + 4 + 4 + 8
    assert passes.backwards == 2 * 4 + 4 * 8


def test_the_pass_of_the_checks_is_measured_where_it_is_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    measured = measurable(gpt(), tokens()[:16])
    estimator = measured.estimator(micro_batches=4)
    passes = Passes(measured.model, monkeypatch)
    sums = estimator.measure(measured.batch, measured.update, max_examples=8, repeats=2)
    assert passes.examples == 16 + 4 + 4  # both chunks are compared with the whole batch
    # The first of them was traced with all groups followed; the estimate is the same as later.
    names = measured.names
    separate = measured.estimator(micro_batches=4)
    separate._routes.update(estimator._routes)
    separate._front_is_right.update(estimator._front_is_right)
    again = separate.measure(measured.batch, measured.update, max_examples=8, repeats=2)
    assert again.estimate(names).unit_rates == pytest.approx(sums.estimate(names).unit_rates)


@pytest.mark.parametrize(
    ("make", "examples"),
    [
        (lambda: LateMixed(2), 16),  # the checks see it in their 4 examples
        (lambda: LateMixed(6), 16),  # only the second chunk shows it
        (lambda: LateMixed(6), 32),  # only the last examples of the front show it
        (lambda: LateMixed(12), 32),  # the front is right
        (Noisy, 16),
    ],
)
def test_a_front_is_only_measured_if_its_outputs_are_those_of_the_batch(
    make: Callable[[], nn.Module], examples: int
) -> None:
    torch.manual_seed(0)
    measured = measurable(make(), torch.randn(examples, 4))
    notices: list[str] = []
    estimator = measured.estimator(micro_batches=4)
    estimator.on_notice = notices.append
    torch.manual_seed(1)
    sums = estimator.measure(measured.batch, measured.update, max_examples=8)
    if isinstance(measured.model, LateMixed) and measured.model.first >= 8:
        assert (sums.examples, notices) == (8, [])
        return
    assert sums.examples == examples
    assert len(notices) == 1
    assert f"the first 8 of {examples} examples do not give the same outputs" in notices[0]
    # What was tried leaves nothing behind: probes, and what is known of the groups.
    whole = measured.estimator(micro_batches=4)
    torch.manual_seed(1)
    expected = whole.measure(measured.batch, measured.update)
    found = sums.estimate(measured.names)
    assert found.unit_rates == pytest.approx(expected.estimate(measured.names).unit_rates)
    assert whole.slow_groups == estimator.slow_groups


def test_batch_norm_in_training_is_not_called_to_see_whether_it_mixes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    measured = measurable(
        nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)), torch.randn(32, 5)
    )
    estimator = measured.estimator(micro_batches=4)
    passes = Passes(measured.model, monkeypatch)
    sums = estimator.measure(measured.batch, measured.update, max_examples=8, repeats=4)
    assert (sums.examples, estimator.repeats) == (32, 1)
    # The checks, a half of their examples, and what is measured.
    assert passes.examples == 4 + 2 + 32


def test_rows_of_patches_are_found() -> None:
    # No input has a dimension of the number of patches, and attention flattens its rows.
    torch.manual_seed(0)
    model = ARCHITECTURES["ViT"].build().eval()
    measured = measurable(model, torch.randn(6, 3, 20, 20))
    estimator = measured.estimator()
    estimator.estimate(measured.batch, measured.update)
    assert not estimator.slow_groups


class Patches(nn.Module):
    """Attention over the patches of an image, of which any number may be joined."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.patches(x).flatten(2).mT
        mixed = self.attention(rows, rows, rows, need_weights=False)[0]
        out: Tensor = self.head(torch.tanh(mixed.mean(1)))
        return out


def test_images_of_a_different_size_are_measured_right() -> None:
    torch.manual_seed(0)
    measured = measurable(Patches(), torch.randn(8, 3, 6, 10))
    assert_converges(measured)
    estimator = measured.estimator(probes=100)
    estimator.estimate(measured.batch, measured.update)
    assert not estimator.slow_groups
    larger = measurable(measured.model, torch.randn(8, 3, 12, 14))
    estimate = estimator.estimate(larger.batch, larger.update)
    assert estimate.unit_rates == pytest.approx(larger.exact(), rel=0.35)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_benchmarks_architectures_are_built_and_called(name: str) -> None:
    architecture = ARCHITECTURES[name]
    inputs = architecture.inputs()
    outputs = architecture.build()(inputs)
    assert len(outputs) == len(inputs)
    assert outputs.isfinite().all()
