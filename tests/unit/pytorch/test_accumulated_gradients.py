"""Several training calls before one step are measured together."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fslr import MeasurementError
from fslr.testing import FakeAdvisor
from fslr.torch import Batch, MeasuringOptions, Recorder, Update, attach, exact_unit_rates
from fslr.training.projections import ProjectionSums
from tests.measuring import ROUNDING, SIGMAS

LEARNING_RATE = 1e-3


class Words(nn.Module):
    """Mixes the positions of a sequence of any length; one output per position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.mixed = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Any:
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask[..., None]
        return self.head(x + torch.tanh(self.mixed(x.mean(1, keepdim=True))))


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, calls: Sequence[dict[str, Tensor]]
) -> None:
    for call in calls:
        (model(**call).square().mean() / len(calls)).backward()
    optimizer.step()
    optimizer.zero_grad()


def measured(
    calls: Sequence[dict[str, Tensor]], options: MeasuringOptions
) -> tuple[Recorder, list[float]]:
    """Return a recorder of one step, and the exact rates over all calls."""
    torch.manual_seed(0)
    model = Words()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    before = [p.detach().clone() for p in model.parameters()]
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        train_step(model, optimizer, calls)
    steps = [
        (p.detach() - b) / LEARNING_RATE for p, b in zip(model.parameters(), before, strict=True)
    ]
    with torch.no_grad():
        for parameter, start in zip(model.parameters(), before, strict=True):
            parameter.copy_(start)
    update = Update(lambda index: steps[index])
    squares, count = torch.zeros(len(steps)), 0.0
    for call in calls:
        batch = Batch.from_call((), call)
        counted = float(call.get("mask", torch.ones_like(call["tokens"])).sum())
        if not counted:
            continue
        rates = exact_unit_rates(model, recorder.groups, batch, update, mask=options.mask)
        squares += counted * torch.tensor(rates).square()
        count += counted
    return recorder, (squares / count).sqrt().tolist()


def words(*shape: int) -> dict[str, Tensor]:
    return {"tokens": torch.randint(0, 11, shape)}


def examples_of(recorder: Recorder) -> int:
    assert recorder.failures == 0
    assert recorder.estimate is not None
    return recorder.estimate.examples


def test_micro_batches_of_one_example_have_the_error_of_one_batch_of_all() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 11, (32, 5))
    whole, _ = measured([{"tokens": tokens}], MeasuringOptions())
    single, _ = measured([{"tokens": each[None]} for each in tokens], MeasuringOptions())
    assert examples_of(single) == examples_of(whole) == 32
    assert not single.slow_groups
    errors = []
    for recorder in (whole, single):
        assert recorder.estimate is not None
        errors.append(sum(recorder.estimate.relative_errors) / len(recorder.groups))
    assert errors[1] == pytest.approx(errors[0], rel=0.3)
    assert errors[1] < 0.25  # of one example alone it is 0.71


@pytest.mark.compatibility("PyTorch loop", "accumulation")
def test_the_rates_are_those_of_all_elements_of_all_calls() -> None:
    torch.manual_seed(0)
    calls = [words(1, 3), words(4, 9), words(2, 1), words(6, 4)]  # of unequal sizes and lengths
    recorder, exact = measured(calls, MeasuringOptions(probes=150))
    assert examples_of(recorder) == 13
    assert recorder.estimate is not None
    estimate = recorder.estimate
    for rate, error, true in zip(estimate.unit_rates, estimate.relative_errors, exact, strict=True):
        assert abs(math.log(rate / true)) < SIGMAS * error + ROUNDING
        assert error < 0.06
    assert estimate.linearity_error is not None


@pytest.mark.parametrize("place", [0, 2])
def test_a_call_without_examples_adds_nothing(place: int, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    calls = [words(4, 3), words(3, 5)]
    calls.insert(place, words(0, 3))
    model = Words()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    with Recorder(model, optimizer, every=1, provenance="x") as recorder:
        caplog.clear()
        for call in calls:
            model(**call).square().sum().backward()
        optimizer.step()
        assert examples_of(recorder) == 7
        assert not caplog.records
        model(**words(0, 3)).sum().backward()
        optimizer.step()
    assert recorder.failures == 1
    assert "the batch has no examples, so there is nothing to measure" in caplog.text


def test_calls_in_which_more_counts_weigh_more_and_padding_adds_nothing() -> None:
    torch.manual_seed(0)
    calls = [{**words(4, 6), "mask": torch.zeros(4, 6)} for _ in range(3)]
    calls[1]["mask"][:2, :5] = 1.0
    calls[2]["mask"][:, :1] = 1.0
    recorder, exact = measured(calls, MeasuringOptions(probes=150, mask="mask"))
    assert recorder.estimate is not None
    estimate = recorder.estimate
    for rate, error, true in zip(estimate.unit_rates, estimate.relative_errors, exact, strict=True):
        assert abs(math.log(rate / true)) < SIGMAS * error + ROUNDING


@pytest.mark.parametrize("estimator", ["full", "kronecker", "iid"])
def test_every_estimator_adds_up_its_calls(estimator: str) -> None:
    options = MeasuringOptions(estimator=estimator, probes=20)
    calls = [words(2, 3)] * 2 + [words(3, 4)]
    assert examples_of(measured(calls, options)[0]) == 5, "the same tensors count once"


@pytest.mark.parametrize(
    ("sizes", "options", "examples"),
    [
        ([4, 4, 4], MeasuringOptions(), 12),
        ([4, 4, 4], MeasuringOptions(accumulated_examples=11), 8),
        ([4, 4, 20], MeasuringOptions(accumulated_examples=11), 20),
        ([80, 8], MeasuringOptions(), 8),
        ([8, 80], MeasuringOptions(), 80),
        ([4, 4, 4], MeasuringOptions(examples=7), 7),
        ([4, 4, 4], MeasuringOptions(examples=3), 3),
        ([4, 4, 4], MeasuringOptions(examples=30), 12),
    ],
)
def test_the_latest_calls_up_to_a_number_of_examples_are_measured(
    sizes: list[int], options: MeasuringOptions, examples: int
) -> None:
    recorder, _ = measured([words(size, 3) for size in sizes], options)
    assert examples_of(recorder) == examples


@pytest.mark.parametrize("name", ["examples", "accumulated_examples"])
def test_a_number_of_examples_below_1_is_refused(name: str) -> None:
    model = Words()
    optimizer = torch.optim.Adam(model.parameters())
    options = MeasuringOptions(**{name: 0})  # type: ignore[arg-type]
    with pytest.raises(MeasurementError, match=f"{name} is 0; it must be an integer, at least 1"):
        Recorder(model, optimizer, options=options)


Forward = Callable[[nn.Module, Tensor], Tensor]


def recomputed(model: nn.Module, tokens: Tensor) -> Any:
    return checkpoint(model, tokens, use_reentrant=False)


def recomputed_reentrant(model: nn.Module, tokens: Tensor) -> Any:
    return checkpoint(lambda x, _: model(x), tokens, torch.ones(1, requires_grad=True),
                      use_reentrant=True)  # fmt: skip


@pytest.mark.parametrize("forward", [recomputed, recomputed_reentrant])
def test_a_recomputed_call_counts_once(forward: Forward) -> None:
    model = Words()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(2):
            forward(model, words(4, 3)["tokens"]).square().mean().backward()
        optimizer.step()
    assert examples_of(recorder) == 8


def test_a_closure_that_is_called_several_times_counts_once() -> None:
    model, tokens = Words(), words(4, 3)["tokens"]
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(tokens).square().mean()
        loss.backward()
        return loss

    with Recorder(model, optimizer, every=1) as recorder:
        optimizer.step(closure)
        optimizer.step(closure)
    assert examples_of(recorder) == 4


def test_calls_on_the_same_tensors_with_other_numbers_count_each() -> None:
    class Scaled(Words):
        def forward(self, tokens: Tensor, mask: Any = None, *, scale: float = 1.0) -> Any:
            return super().forward(tokens, mask) * scale

    model, tokens = Scaled(), words(4, 3)["tokens"]
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        for scale in (1.0, 2.0, 2.0):
            model(tokens, scale=scale).square().mean().backward()
        optimizer.step()
    assert examples_of(recorder) == 8


class Unreadable(dict[str, Any]):
    """Raises if anything walks over it; the model does not."""

    def __iter__(self) -> Any:
        raise SystemError("not for you")


def test_arguments_that_cannot_be_walked_are_passed_on_as_they_are() -> None:
    class OfBatch(Words):
        def forward(self, batch: Any, *_: Any) -> Any:
            return super().forward(batch["tokens"])

    model = OfBatch()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        model(Unreadable(words(4, 3))).square().mean().backward()
        optimizer.step()
    assert examples_of(recorder) == 4


def test_an_earlier_call_that_returns_something_else_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class WithFeatures(Words):
        def forward(self, tokens: Tensor, mask: Any = None, *, features: bool = False) -> Any:
            logits = super().forward(tokens, mask)
            return (logits, tokens) if features else logits

    caplog.set_level(logging.INFO, "fslr")
    model = WithFeatures()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(2):
            model(**words(5, 3), features=True)[0].square().mean().backward()
            model(**words(4, 3)).square().mean().backward()
            optimizer.step()
            assert examples_of(recorder) == 4
        model(**words(5, 3), features=True)[0].square().mean().backward()
        optimizer.step()
        assert recorder.failures == 1, "the last call has to be measured"
    (message,) = [r.message for r in caplog.records if "is left out" in r.message]
    assert "returns a tuple, not a tensor; select the output" in message


def test_inputs_of_earlier_calls_take_a_limited_amount_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fslr.torch.calls.training_calls._MIN_EARLIER_BYTES", 10_000)
    model = nn.Sequential(nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 30))  # 6,600 bytes
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(4):
            model(torch.randn(20, 50)).square().mean().backward()  # 4,000 bytes each
        optimizer.step()
        assert examples_of(recorder) == 60
        for _ in range(2):
            model(torch.randn(60, 50)).square().mean().backward()  # more than the limit
        optimizer.step()
        assert examples_of(recorder) == 60


def test_a_model_that_changes_its_inputs_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Doubling(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in nn.Linear
            return super().forward(input.mul_(2))

    for model in (nn.Linear(4, 3), Doubling(4, 3)):
        optimizer = torch.optim.Adam(model.parameters())
        caplog.clear()
        with Recorder(model, optimizer, every=1) as recorder:
            for _ in range(2):
                model(torch.randn(6, 4)).square().mean().backward()
                optimizer.step()
        assert examples_of(recorder) == 6
        expected = 1 if isinstance(model, Doubling) else 0
        assert caplog.text.count("written to since the call began") == expected


def test_of_a_buffer_that_each_micro_batch_is_copied_into_the_last_content_counts() -> None:
    model = Words()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        buffer = torch.zeros(4, 3, dtype=torch.int64)
        for _ in range(3):
            buffer.copy_(words(4, 3)["tokens"])
            model(buffer).square().mean().backward()
        optimizer.step()
    assert examples_of(recorder) == 4


def test_validations_between_micro_batches_do_not_count() -> None:
    model = Words()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(2):
            model.train()
            model(**words(4, 3)).square().mean().backward()
            model.eval()
            model(**words(9, 3))
            with torch.no_grad():
                model(**words(10, 3))
        optimizer.step()
        assert examples_of(recorder) == 8
        for _ in range(2):  # a model that is trained in eval mode
            model(**words(5, 3)).square().mean().backward()
        optimizer.step()
        assert examples_of(recorder) == 10


def test_all_calls_of_a_module_that_is_used_twice_count() -> None:
    # A discriminator on real and on generated examples; so does an encoder of two towers.
    generator, discriminator = nn.Linear(3, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    optimizers = [torch.optim.Adam(m.parameters()) for m in (generator, discriminator)]
    with Recorder(discriminator, optimizers[1], every=1) as recorder:
        for _ in range(2):
            generated = generator(torch.randn(5, 3))
            loss = (
                discriminator(torch.randn(4, 6)).mean() - discriminator(generated.detach()).mean()
            )
            loss.backward()
            optimizers[1].step()
            assert examples_of(recorder) == 9
            discriminator.zero_grad()
        discriminator(generated).mean().backward()  # the step of the generator
        optimizers[0].step()
        (-discriminator(torch.randn(4, 6)).mean()).backward()
        optimizers[1].step()
        assert examples_of(recorder) == 9  # since the last step


def test_inputs_are_kept_without_their_graphs_and_only_until_the_step() -> None:
    before, model = nn.Linear(3, 6), nn.Linear(6, 2)
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=2) as recorder:
        inputs = torch.randn(4, 3)
        hidden = before(inputs)
        loss = model(hidden).sum()
        kept = weakref.ref(inputs)  # by the graph, for the gradient of the weights
        (call,) = recorder._meter._calls.latest()
        assert call.args[0].data_ptr() == hidden.data_ptr()
        assert call.args[0].requires_grad
        del hidden, inputs, call, loss
        gc.collect()
        assert kept() is None
        optimizer.step()
        assert not recorder._meter._calls.latest()


def test_sums_of_parts_with_different_numbers_of_probes_are_those_of_their_rates() -> None:
    def sums(rate: float, probes: int, error: float) -> ProjectionSums:
        squares = np.array([rate**2 * probes * 10])
        freedoms = 0.5 / error**2
        fourths = squares**2 * 3 / (freedoms + 2)
        return ProjectionSums(squares, fourths, 10, 5, probes, squares[None], 2.0, 1.0)

    estimate = (sums(1.0, 2, 0.1) + sums(3.0, 16, 0.1)).estimate(["a"], [1.0])
    assert estimate.unit_rates == pytest.approx([math.sqrt(5)])
    assert estimate.total_rate == pytest.approx(math.sqrt(5))
    assert estimate.examples == 10
    swapped = (sums(3.0, 16, 0.1) + sums(1.0, 2, 0.1)).estimate(["a"], [1.0])
    assert swapped.relative_errors == pytest.approx(estimate.relative_errors)
    assert 0.07 < estimate.relative_errors[0] < 0.1


def test_a_model_that_writes_to_its_inputs_trains_as_without_an_observer() -> None:
    class Normalizing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.first(x.div_(x.norm(dim=1, keepdim=True)).add_(0.1))
            found: Tensor = self.last(torch.relu(hidden))
            return found

    def trained(*, is_observed: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model, data = Normalizing(), torch.randn(64, 6)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        advisor = FakeAdvisor(0.5, interval_steps=5)
        with ExitStack() as stack:
            if is_observed:
                stack.enter_context(
                    attach(
                        *(model, optimizer),
                        profile="x",
                        advisor=advisor,
                        answers="wait",
                        observe_only=True,
                    )
                )
            for batch in 3 * data.split(16):  # views of a data set in memory
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()
        return [data, *(p.detach() for p in model.parameters())]

    plain, observed = trained(is_observed=False), trained(is_observed=True)
    for one, other in zip(plain, observed, strict=True):
        assert torch.equal(one, other)
