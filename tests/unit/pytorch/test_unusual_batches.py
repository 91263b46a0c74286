"""Batches whose examples are not simply the leading dimension of inputs and output."""

from __future__ import annotations

import copy
import logging
import math
from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.torch import Batch, MeasuringOptions, Recorder
from fslr.torch.model.structure import map_tensors, tensors_in
from tests.measuring import ROUNDING, SIGMAS
from tests.unusual_models import (
    Bags,
    Call,
    Forces,
    LastOfPacked,
    OfWhole,
    OfWords,
    OneNumber,
    Packed,
    PackedRow,
    Plain,
    Pooled,
    TimeFirst,
    bags,
    graphs,
    packed,
    packed_row,
)

LEARNING_RATE = 1e-3


def call_of(model: nn.Module, call: Call) -> Tensor:
    with torch.enable_grad():
        result: Tensor = model(**call) if isinstance(call, dict) else model(*call)
    return result


def measured(model: nn.Module, call: Call, **options: Any) -> tuple[Recorder, list[float]]:
    """Return a recorder of one step, and the exact rates of the whole batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    before = [p.detach().clone() for p in model.parameters()]
    with Recorder(model, optimizer, every=1, options=MeasuringOptions(**options)) as recorder:
        outputs = call_of(model, call)
        (
            outputs - torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)
        ).square().sum().backward()
        optimizer.step()
    assert recorder.failures == 0
    return recorder, exact_rates(model, call, before)


def exact_rates(model: nn.Module, call: Call, before: list[Tensor]) -> list[float]:
    """Return the rates of a step from some weights to the model's, by differences in float64."""
    model = copy.deepcopy(model).double()
    call = map_tensors(call, lambda t: t.double() if t.is_floating_point() else t)
    after = [p.detach().clone() for p in model.parameters()]
    rates: list[float] = []
    with torch.no_grad():
        for parameter, start in zip(model.parameters(), before, strict=True):
            parameter.copy_(start)
        for parameter, start, end in zip(model.parameters(), before, after, strict=True):
            sides = []
            for sign in (1, -1):
                parameter.copy_(start + 0.01 * sign * (end - start))
                sides.append(call_of(model, call).detach())
            parameter.copy_(start)
            change = (sides[0] - sides[1]) / (0.02 * LEARNING_RATE)
            rates.append(float(change.square().mean().sqrt()))
    return rates


def assert_right(recorder: Recorder, exact: list[float], max_error: float = 0.15) -> None:
    estimate = recorder.estimate
    assert estimate is not None
    for name, rate, error, true in zip(
        [g.name for g in recorder.groups],
        estimate.unit_rates,
        estimate.relative_errors,
        exact,
        strict=True,
    ):
        assert abs(math.log(rate / true)) < SIGMAS * error + ROUNDING, (name, rate, true, error)
        assert error < max_error, (name, error)


def examples_of(recorder: Recorder) -> int:
    assert recorder.estimate is not None
    return recorder.estimate.examples


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Call], dict[str, Any], int]] = {
    "pooled graphs": (Pooled, graphs, {}, 8),
    "pooled graphs, counted": (Pooled, graphs, {"count_examples": lambda i: i["graphs"]}, 8),
    "time first, unequal lengths": (
        TimeFirst,
        lambda: (torch.randn(7, 6, 8), torch.randn(5, 6, 8)),
        {},
        5,
    ),
    "time first, with batch_dim": (
        TimeFirst,
        lambda: (torch.randn(7, 6, 8), torch.randn(5, 6, 8)),
        {"batch_dim": 1},
        6,
    ),
    "time first, examples lead in masks": (
        TimeFirst,
        lambda: (
            torch.randn(7, 6, 8),
            torch.randn(5, 6, 8),
            torch.arange(7) > torch.ones(6, 1) * 4,
        ),
        {"batch_dim": 1},
        6,
    ),
    "bags": (Bags, lambda: bags(16), {}, 16),
    "bags, indices first": (
        Bags,
        lambda: dict(zip(("indices", "offsets"), reversed(bags(16)), strict=True)),
        {},
        16,
    ),
    "packed, an output per element": (Packed, packed, {}, 20),
    "packed, an output per sequence": (LastOfPacked, packed, {}, 6),
    "packed into one row": (PackedRow, packed_row, {}, 1),
    "forces": (Forces, lambda: (torch.randn(8, 3),), {}, 8),
    "no tensors": (OfWords, lambda: (["a", "sequence", "of", "some", "words"],), {}, 5),
    "one number per example": (OneNumber, lambda: (torch.randn(16, 4),), {}, 16),
    "one number for all examples": (OfWhole, lambda: (torch.randn(16, 4),), {}, 1),
    "transposed inside": (
        lambda: nn.Sequential(Plain(), nn.Flatten(0, 1), nn.Unflatten(0, (3, 8))),
        lambda: (torch.randn(3, 8, 4),),
        {"batch_dim": (1, 1)},
        8,
    ),
}


@pytest.mark.parametrize("estimator", ["per_example", "full"])
@pytest.mark.parametrize("case", CASES)
def test_rates_of_unusual_batches_are_right(case: str, estimator: str) -> None:
    make, call, options, examples = CASES[case]
    torch.manual_seed(0)
    probes = 80 if estimator == "full" else 25
    recorder, exact = measured(make(), call(), estimator=estimator, probes=probes, **options)
    assert_right(recorder, exact)
    assert examples_of(recorder) == examples


def test_a_packed_row_needs_more_probes_for_the_same_error() -> None:
    torch.manual_seed(0)
    errors = {}
    for probes in (1, 8):
        recorder, _ = measured(PackedRow(), packed_row(), probes=probes)
        assert recorder.estimate is not None
        *estimated, of_weight, of_bias = recorder.estimate.relative_errors
        assert of_weight == of_bias == 0  # of the head: exact
        errors[probes] = max(estimated)
    assert errors[1] == pytest.approx(0.5 * math.sqrt(2))
    assert 0.15 < errors[8] < 0.3  # 0.25 if all probes projected equally much


@pytest.mark.parametrize(
    ("make", "call", "examples", "message"),
    [
        (Pooled, graphs, 8, "first input has 40 examples and the output 8, so those of the output"),
        (
            OfWhole,
            lambda: (torch.randn(16, 4),),
            1,
            "the output is the loss, one number, so its ra",
        ),
    ],
)
def test_the_log_says_once_what_counts_the_examples(
    make: Any, call: Any, examples: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fslr")
    model = make()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(3):
            model(*call()).square().mean().backward()
            optimizer.step()
    assert recorder.failures == 0
    assert examples_of(recorder) == examples
    assert caplog.text.count(message) == 1
    assert caplog.text.count("is the loss") == (make is OfWhole)


@pytest.mark.parametrize(
    ("make", "call"),
    [(Bags, lambda: bags(16)), (Pooled, graphs), (LastOfPacked, packed)],
)
@pytest.mark.parametrize("estimator", ["per_example", "full"])
def test_a_batch_that_may_not_be_cut_is_measured_whole(
    make: Any, call: Any, estimator: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fslr")
    torch.manual_seed(0)
    recorder, exact = measured(make(), call(), examples=4, probes=80, estimator=estimator)
    assert_right(recorder, exact)
    assert examples_of(recorder) > 4


def test_the_log_says_that_a_batch_may_not_be_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fslr")
    measured(Bags(), bags(16), examples=4)
    assert "first 4 of 16 examples do not give the same outputs alone" in caplog.text
    caplog.clear()
    measured(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (torch.randn(8, 4),), examples=4)
    assert "first 4 of 8 examples do not give the same outputs alone" in caplog.text


def test_of_several_calls_those_that_may_not_be_cut_are_left_out() -> None:
    torch.manual_seed(0)
    model = Bags()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1, options=MeasuringOptions(examples=20)) as recorder:
        for _ in range(3):
            model(*bags(16)).square().mean().backward()
        optimizer.step()
    assert recorder.failures == 0
    assert examples_of(recorder) == 16


def test_the_front_of_a_batch_has_the_rates_of_these_examples_alone() -> None:
    torch.manual_seed(0)
    model, inputs = Plain(), torch.randn(16, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    before = [p.detach().clone() for p in model.parameters()]
    options = MeasuringOptions(examples=5, probes=80)
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        model(inputs).square().mean().backward()
        optimizer.step()
    assert_right(recorder, exact_rates(model, (inputs[:5],), before))
    assert examples_of(recorder) == 5


class Ragged(Plain):
    """Sums over sequences of unequal lengths, in one nested tensor or in a list."""

    def forward(self, x: Any) -> Any:
        rows = torch.tanh(self.first(x)).unbind() if isinstance(x, Tensor) else map(self.row, x)
        return self.second(torch.stack([row.sum(0) for row in rows]))

    def row(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))


def test_a_nested_tensor_is_measured_like_the_sequences_in_it() -> None:
    torch.manual_seed(0)
    sequences = [torch.randn(length, 4) for length in (3, 5, 2, 6, 1)]
    nested = torch.nested.nested_tensor(sequences, layout=torch.jagged)
    model = Ragged()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    before = [p.detach().clone() for p in model.parameters()]
    with Recorder(model, optimizer, every=1, options=MeasuringOptions(probes=80)) as recorder:
        model(nested).square().mean().backward()
        optimizer.step()
    assert_right(recorder, exact_rates(model, (sequences,), before))
    assert examples_of(recorder) == 5
    assert set(recorder.slow_groups) == {"first.weight", "first.bias"}


class Keyed(NamedTuple):
    features: Tensor
    other: str = "words"


@dataclass(frozen=True)
class Frozen:
    features: Tensor
    more: list[Tensor] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    features: Tensor


class Encoding(UserDict[str, Any]):
    """Like the BatchEncoding of transformers: keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self.data[name]


class Storage:
    def __init__(self, mapping: dict[str, Any]) -> None:
        self._mapping = mapping


class GraphLike:
    """Like a batch of torch_geometric, which keeps its tensors in a storage of its own."""

    def __init__(self, features: Tensor) -> None:
        self._store = Storage({"features": features})
        self.itself = self

    @property
    def features(self) -> Any:
        return self._store._mapping["features"]


class Container(Plain):
    def forward(self, batch: Any) -> Any:
        features = batch["features"] if isinstance(batch, Mapping) else batch.features
        return super().forward(features)


CONTAINERS: dict[str, Callable[[Tensor], Any]] = {
    "dict": lambda x: {"features": x},
    "ordered dict": lambda x: OrderedDict(features=x, other=3),
    "user dict": lambda x: UserDict({"features": x}),
    "encoding": lambda x: Encoding({"features": x}),
    "named tuple": Keyed,
    "frozen dataclass": lambda x: Frozen(x, [x]),
    "slotted dataclass": Slotted,
    "namespace": lambda x: SimpleNamespace(features=x, name="words"),
    "graph-like": GraphLike,
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_inputs_in_any_container_are_counted_and_cut(kind: str) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(16, 4)
    batch = CONTAINERS[kind](inputs)
    recorder, exact = measured(Container(), (batch,), probes=60)
    assert_right(recorder, exact)
    assert examples_of(recorder) == 16
    assert not recorder.slow_groups
    recorder, _ = measured(Container(), (batch,), examples=5)
    assert examples_of(recorder) == 5
    assert tensors_in(batch)[0] is inputs, "the user's own batch is unchanged"
    doubled = map_tensors(batch, lambda tensor: 2 * tensor)
    assert type(doubled) is type(batch)
    assert torch.equal(tensors_in(doubled)[0], 2 * inputs)


def test_a_container_that_cannot_be_copied_stays_whole() -> None:
    class Sealed(UserDict[str, Any]):
        def __setitem__(self, key: str, item: Any) -> None:
            if key in self.data:
                raise PermissionError(key)
            super().__setitem__(key, item)

    batch = Sealed({"features": torch.randn(16, 4)})
    model = Container()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, optimizer, every=1, options=MeasuringOptions(examples=5)) as recorder:
        model(batch).square().mean().backward()
        optimizer.step()
    assert examples_of(recorder) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_dim": -1}, r"batch_dim is -1; it must be a dimension of at least 0, or a pair"),
        ({"batch_dim": (0, 1, 2)}, r"batch_dim is \(0, 1, 2\)"),
        ({"batch_dim": 2}, r"output has shape \(8, 3\), so no dimension 2 that counts"),
        ({"count_examples": lambda i: i["y"]}, r"raised KeyError\('y'\); .* by name: 'x'"),
        ({"count_examples": lambda _: 0}, "count_examples returned 0; it must be at least 1"),
        (
            {"count_examples": lambda _: 4},
            r"output has shape \(8, 3\), but the batch has 4 examples, and dimension 0 .* correct",
        ),
        ({"count_examples": 8}, "count_examples is 8; it must be a function of the call's"),
        ({"mask": torch.ones(8)}, r"mask is a Tensor; it must be a key of the batch or a function"),
    ],
)
def test_options_that_do_not_fit_the_batch_are_errors(options: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        measured(Plain(), (torch.randn(8, 4),), **options)


class OnAnAccelerator(Tensor):
    """A tensor that says that it is on an accelerator, for a check without one."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


def test_no_index_beyond_a_part_is_tried_on_an_accelerator() -> None:
    # There a wrong index ends the process, so it is never tried whether the model accepts it.
    x, edges, graph, count = graphs()
    batch = Batch.from_call((x, edges, graph, count), {})
    assert batch.may_be_tried_in_parts_of(4)
    on_device = Batch.from_call((x, edges.as_subclass(OnAnAccelerator), graph, count), {})
    assert not on_device.may_be_tried_in_parts_of(4)
    assert not on_device.may_be_tried_in_parts_of(39)
    positions = torch.arange(4).as_subclass(OnAnAccelerator)
    assert Batch.from_call((x, positions), {}).may_be_tried_in_parts_of(4)
