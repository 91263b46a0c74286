"""One rank of a training job with two ranks; tests/e2e/test_distributed.py runs it. Prints JSON.

Usage: python -m tests.distributed_job KIND RANK PORT, with KIND one of plain, ddp,
fsdp, failing (DDP, and rank 1 cannot measure from step 3 on), fsdp-failing (the same with FSDP2,
before any pass), uneven (FSDP2, and ranks have different numbers of examples), unwrapped (a model
that is not wrapped for two processes).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from benchmarks.char_gpt import CharGPT, CharGPTConfig
from fslr import AttachError, RunInfo
from fslr.advisor.v1 import policy_pb2
from fslr.torch import MeasuringOptions
from tests.building import content_message

_STEPS = 12
_EXAMPLES = 8  # total over both ranks
_UNEVEN = ((16, 6), (3, 9), (9, 5), (2, 12))  # examples on each rank, step by step
_POLICY = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=4)


def build() -> nn.Module:
    torch.manual_seed(0)
    return CharGPT(CharGPTConfig(vocabulary=23, width=16, blocks=2, context=8))


def wrapped(kind: str) -> nn.Module:
    model = build()
    if kind in {"ddp", "failing"}:
        return nn.parallel.DistributedDataParallel(model)
    if kind.startswith("fsdp"):
        assert isinstance(model, CharGPT)
        shard(model, model.blocks)
    return model


def shard(model: nn.Module, parts: Iterable[nn.Module]) -> None:
    from torch.distributed.fsdp import fully_shard

    for part in parts:
        fully_shard(part)
    fully_shard(model)


def advisor_for(model: nn.Module, *, talks: bool) -> InProcessAdvisor:
    names = [name.removeprefix("module.") for name, _ in model.named_parameters()]
    advisor = InProcessAdvisor(content_message(names, rate=0.3))
    if not talks:

        def refuse(*_: object) -> None:
            raise AssertionError("only rank 0 talks to the advisor")

        advisor.validate_layout = advisor.open_run = refuse  # type: ignore[method-assign,assignment]
    return advisor


def train(kind: str, rank: int, ranks: int) -> dict[str, object]:
    model = wrapped(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    data = torch.Generator().manual_seed(1)
    multipliers: list[list[float]] = []

    def output(result: Tensor) -> Tensor:
        if kind == "failing" and rank == 1 and len(multipliers) > 2:
            raise torch.OutOfMemoryError("no room on this rank")
        return result

    probes = 8 if kind.endswith("failing") else 100  # only the comparison of rates needs 100
    options = MeasuringOptions(probes=probes, output=output)
    attachment = fslr.torch.attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor_for(model, talks=rank == 0),
        run=RunInfo(policy=_POLICY),
        options=options,
        max_overhead=None,
    )
    initial_rms = [group.initial_rms for group in attachment.groups.layout().groups]
    first: dict[str, list[float] | None] = {}

    def no_room() -> None:
        raise torch.OutOfMemoryError("no room on this rank")

    with attachment:
        for _ in range(_STEPS):
            inputs = torch.randint(0, 23, (_EXAMPLES, 8), generator=data)
            local = inputs[rank::ranks]
            loss: Tensor = nn.functional.cross_entropy(model(local).flatten(0, 1), local.flatten())
            optimizer.zero_grad()
            loss.backward()
            if kind == "fsdp-failing" and rank == 1 and len(multipliers) > 2:
                attachment._meter.begin_step = no_room  # type: ignore[method-assign]
            optimizer.step()
            multipliers.append(list(attachment.multipliers))
            if not first and attachment.estimate is not None:
                found = attachment.estimate
                first = {
                    "rates": found.unit_rates,
                    "weight_rms": found.weight_rms,
                    "update_rms": found.update_rms,
                }
                attachment._meter.size.set_probes(4)  # only the first rates are compared
        weights = [
            (p.full_tensor() if hasattr(p, "full_tensor") else p).double().sum().item()
            for p in model.parameters()
        ]
    return {
        **first,
        "initial_rms": initial_rms,
        "multipliers": multipliers,
        "weights": weights,
        "failures": attachment.failures,
        "slow": sorted(attachment.slow_groups),
    }


def train_unevenly(rank: int) -> dict[str, object]:
    """Train a model measured per example, and one whose examples depend on each other."""
    text_model = build()
    assert isinstance(text_model, CharGPT)
    shard(text_model, text_model.blocks)
    batch_norm_model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    shard(batch_norm_model, [batch_norm_model[0], batch_norm_model[3]])

    def characters(examples: int) -> Tensor:
        return torch.randint(0, 23, (examples, 8 - 2 * rank))  # lengths differ too

    def numbers(examples: int) -> Tensor:
        return torch.randn(examples, 6)

    found: dict[str, object] = {}
    torch.manual_seed(rank)
    models: dict[str, tuple[nn.Module, Callable[[int], Tensor]]] = {
        "by example": (text_model, characters),
        "in sums": (batch_norm_model, numbers),
    }
    for name, (model, inputs) in models.items():
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        with fslr.torch.Recorder(model, optimizer, every=1) as recorder:
            for sizes in _UNEVEN:
                optimizer.zero_grad()
                model(inputs(sizes[rank])).square().mean().backward()
                optimizer.step()
        found[name] = {
            "rates": [list(point.unit_rates) for point in recorder.profile(name).points],
            "failures": recorder.failures,
            "slow": sorted(recorder.slow_groups),
        }
    return found


def main(kind: str, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    if kind == "plain":
        print(json.dumps(train(kind, 0, 1)))
        return
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        print(json.dumps(train_unevenly(rank) if kind == "uneven" else train(kind, rank, 2)))
    except AttachError as error:
        print(json.dumps({"error": str(error)}))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
