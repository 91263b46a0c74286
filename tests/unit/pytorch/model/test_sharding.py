"""Sharded models: those that are measured, and those that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from advisor.local.in_process import InProcessAdvisor
from fslr import AttachError, RateEstimate
from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, Recorder, attach
from tests.building import content_message

INDEPENDENT = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT


@pytest.fixture(autouse=True)
def one_rank() -> Iterator[None]:
    """Make this process the only rank of a job; its shards contain whole parameters."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dist.destroy_process_group()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def tensor_parallel(how: str) -> nn.Module:
    """Return a model with tensor parallelism, by itself or combined with FSDP2."""
    model: nn.Module = net()
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    if how == "only":
        return parallelize_module(model, init_device_mesh("cpu", (1,)), plan)
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "features"))
    model = parallelize_module(model, mesh["features"], {**plan, "1": SequenceParallel()})
    fully_shard(model, mesh=mesh["data"])
    return model


@pytest.mark.parametrize(("how", "count"), [("only", 4), ("under FSDP2", 6)])
def test_tensor_parallelism_is_refused(how: str, count: int) -> None:
    model = tensor_parallel(how)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    message = rf"{count} parameter\(s\) are sharded, but not by fully_shard, first '0.weight'"
    with pytest.raises(AttachError, match=message):
        Recorder(model, optimizer, process_group=dist.group.WORLD)
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(AttachError, match="shard the model only with fully_shard"):
        attach(
            model,
            optimizer,
            profile="x",
            advisor=InProcessAdvisor(content_message(names)),
            process_group="alone",
        )


@pytest.mark.parametrize("how", ["all ranks", "copies of shards", "in parts"])
def test_models_of_fully_shard_are_measured(how: str) -> None:
    model = net()
    if how == "in parts":
        fully_shard(model[0])
    sizes = {"copies": 1, "shards": 1} if how == "copies of shards" else {"shards": 1}
    mesh = init_device_mesh("cpu", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(8, 4)
    model(inputs)  # the parameters of the outermost module stay gathered
    with Recorder(model, optimizer, every=1, process_group=dist.group.WORLD) as recorder:
        model(inputs).square().mean().backward()
        optimizer.step()
    assert recorder.estimate is not None
    assert min(recorder.estimate.unit_rates) > 0


@pytest.mark.parametrize("excludes", [False, True])
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_weights_decay_and_are_measured_as_in_a_whole_model(scaling: Any, excludes: bool) -> None:
    found: list[tuple[list[torch.Tensor], RateEstimate]] = []
    for sharded in (False, True):
        model = net()
        if sharded:
            fully_shard(model[0])
            fully_shard(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.3)
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
        with attach(
            model,
            optimizer,
            profile="x",
            advisor=FakeAdvisor(
                (0.05, 0.5, 1.0, 2.0, 10.0, 0.001), weight_decay=INDEPENDENT, interval_steps=1
            ),
            options=MeasuringOptions(exclude_weight_decay=excludes),
            scaling=scaling,
            answers="wait",
        ) as attachment:
            for _ in range(3):
                optimizer.zero_grad()
                model(inputs).square().sum().backward()
                optimizer.step()
            assert attachment.failures == 0
            assert attachment.estimate is not None
            weights = [p.full_tensor() if sharded else p for p in model.parameters()]  # type: ignore[attr-defined]
            found.append(([w.detach() for w in weights], attachment.estimate))
    (weights, whole), (shards, parts) = found
    for weight, shard in zip(weights, shards, strict=True):
        torch.testing.assert_close(shard, weight)
    for name in ("unit_rates", "weight_rms", "update_rms", "linearity_error"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-3)
