"""Layouts of models: the message that the advisor receives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.overrides import TorchFunctionMode

from advisor.wire import layout_from_proto
from fslr.advisor.v1 import layout_pb2
from fslr.torch import ModelGroups
from fslr.torch.model.initial_weights import rms_of


def layout(model: nn.Module) -> layout_pb2.Layout:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return ModelGroups(model, torch.optim.Adam(trained)).layout()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def test_a_layout_describes_each_tensor() -> None:
    model = net()
    found = layout(model)
    assert [
        (g.name, list(g.shape), g.fan_in, g.fan_out, layout_pb2.GroupKind.Name(g.kind)[11:])
        for g in found.groups
    ] == [
        ("0.weight", [7, 4], 7, 4, "EMBEDDING"),
        ("1.weight", [6, 4], 4, 6, "HIDDEN"),
        ("1.bias", [6], 1, 6, "VECTOR"),
        ("2.weight", [6], 1, 6, "VECTOR"),
        ("2.bias", [6], 1, 6, "VECTOR"),
        ("3.weight", [2, 6], 6, 2, "READOUT"),
        ("3.bias", [2], 1, 2, "VECTOR"),
    ]
    assert [group.initial_rms for group in found.groups] == pytest.approx([
        parameter.detach().square().mean().sqrt().item() for parameter in model.parameters()
    ])
    assert not any(group.optimizer for group in found.groups)
    assert layout_from_proto(found).initial_rms[4] == 0.0  # the bias of a norm


def test_frozen_parameters_are_listed_by_name_and_size_only() -> None:
    model = net()
    model[1].requires_grad_(False)
    found = layout(model)
    assert list(found.frozen_names) == ["1.weight", "1.bias"]
    assert list(found.frozen_parameter_counts) == [24, 6]
    assert found.groups[1].name == "2.weight"


@pytest.mark.parametrize(
    "optimizer_class", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop]
)
def test_initial_weights_are_left_out_once_the_optimizer_has_made_a_step(
    optimizer_class: Callable[..., torch.optim.Optimizer],
) -> None:
    model = net()
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    groups = ModelGroups(model, optimizer)
    assert all(group.HasField("initial_rms") for group in groups.layout().groups)
    model(torch.arange(7)).sum().backward()
    optimizer.step()
    found = groups.layout()
    assert not any(group.HasField("initial_rms") for group in found.groups)
    assert found.groups[1].shape == [6, 4]


def test_what_a_model_without_weights_does_not_know_is_left_out() -> None:
    with torch.device("meta"):
        meta = net()
    found = layout(meta)
    assert [group.shape for group in found.groups[:2]] == [[7, 4], [6, 4]]
    assert not any(group.HasField("initial_rms") for group in found.groups)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.tensor([3.0, -4.0]), math.sqrt(12.5)),
        (torch.zeros(2, 3), 0.0),
        (torch.tensor(-2.0), 2.0),
        (torch.full((4_000,), 300.0, dtype=torch.float16), 300.0),  # its sum of squares overflows
        (torch.full((4_000,), 0.01, dtype=torch.bfloat16), 0.01),
        (torch.full((3,), 1e-5, dtype=torch.float64), 1e-5),
        (torch.full((3,), 3 + 4j), 5.0),
        (torch.empty(0, 3), None),
        (torch.tensor([1.0, math.inf]), None),
        (torch.tensor([1.0, math.nan]), None),
    ],
)
def test_the_rms_of_a_tensor(values: torch.Tensor, expected: float | None) -> None:
    first, middle, last = rms_of([
        nn.Parameter(torch.ones(2)),
        nn.Parameter(values),
        nn.Parameter(torch.ones(3)),
    ])
    assert (first, last) == pytest.approx((1.0, 1.0))
    assert middle == (None if expected is None else pytest.approx(expected, rel=2e-3))


def test_reading_initial_weights_changes_no_random_numbers_and_no_gradients() -> None:
    model = net()
    state = torch.get_rng_state()
    layout(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


class _WithoutNorm(torch.Tensor):
    """A tensor of a class that implements few functions, as those of quantized weights do."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.linalg.vector_norm:
            raise NotImplementedError
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def test_a_tensor_whose_class_has_no_norm_is_unknown() -> None:
    strange = nn.Parameter(torch.ones(2).as_subclass(_WithoutNorm))
    assert rms_of([nn.Parameter(torch.full((3,), 2.0)), strange]) == [pytest.approx(2.0), None]


class _Reads(TorchFunctionMode):
    """Counts the reads of values, for each of which a device would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        reads = {"tolist", "item", "numpy", "cpu", "__float__", "__bool__", "__int__"}
        self.count += getattr(func, "__name__", "") in reads
        return func(*args, **(kwargs or {}))


def test_the_device_is_waited_for_once() -> None:
    parameters = list(net().parameters())
    with _Reads() as reads:
        assert None not in rms_of(parameters)
    assert reads.count == 1


@pytest.fixture
def one_rank() -> Iterator[None]:
    """Make this process the only rank of a job; its shards contain whole parameters."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("how", ["shards", "copies of shards", "in parts", "data parallel"])
def test_the_layout_of_a_wrapped_model_is_that_of_the_model(how: str) -> None:
    expected, model = layout(net()), net()
    wrapped: nn.Module = model
    if how == "data parallel":
        wrapped = nn.parallel.DistributedDataParallel(model)
    else:
        if how == "in parts":
            fully_shard(model[1])
        sizes = {"copies": 1, "shards": 1} if how == "copies of shards" else {"shards": 1}
        mesh = init_device_mesh("cpu", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        fully_shard(model, mesh=mesh)
    assert layout(wrapped) == expected
