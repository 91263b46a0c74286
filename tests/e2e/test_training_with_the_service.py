"""A PyTorch job through the real service: record, register, attach, train, restart."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import fslr.torch
from advisor.local.server import LocalServer
from benchmarks.demo.experiment import DemoPlan
from benchmarks.demo.pictures import draw_all
from fslr import AdvisorClient, RunInfo
from fslr.advisor.v1 import policy_pb2
from tests.training_jobs import attaching, plan, recorded, run
from tests.waiting import eventually

OFTEN = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)


def test_a_job_trains_with_multipliers_from_the_service(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", recorded(), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    seen: list[fslr.torch.Attachment] = []
    attach = attaching(
        seen,
        lambda m, o: fslr.torch.attach(
            m,
            o,
            profile="gpt@prod",
            advisor=client.address,
            run=RunInfo(name="wide", project=project, policy=OFTEN),
        ),
    )
    run(plan(width=32, steps=20), attach)
    assert (seen[0].failures, seen[0].unanswered) == (0, 0)
    assert seen[0].answer is not None
    assert seen[0].answer.profile.endswith("gpt@1")
    eventually(lambda: client.get_run("wide", project=project).measurements >= 5)
    events = list(client.get_run_history("wide", project=project))
    assert [event.measurement.step for event in events][:2] == [0, 2]
    assert list(events[0].recommendation.multipliers) != [1.0] * len(seen[0].groups)


def test_the_rate_of_a_block_is_divided_among_the_blocks_of_a_deeper_model(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", recorded(), project=project)
    seen: list[fslr.torch.Attachment] = []
    attach = attaching(
        seen,
        lambda m, o: fslr.torch.attach(
            m,
            o,
            profile="gpt",
            advisor=client.address,
            run=RunInfo(project=project),
        ),
    )
    run(plan(blocks=3, steps=2), attach)
    assert seen[0].answer is not None
    first = recorded().points[0]
    base = dict(zip((g.name for g in recorded().layout.groups), first.unit_rates, strict=True))
    references = dict(
        zip((g.name for g in seen[0].groups), seen[0].answer.reference_unit_rates, strict=True)
    )
    for i in range(3):
        assert references[f"blocks.{i}.up.weight"] == pytest.approx(
            base["blocks.0.up.weight"] / 3, rel=1e-6
        )
    assert references["head.weight"] == pytest.approx(base["head.weight"], rel=1e-6)


def test_training_continues_without_the_service_and_reconnects(tmp_path: Path) -> None:
    from benchmarks.char_gpt import CharGPT

    data = tmp_path / "data"
    torch.manual_seed(0)
    model = CharGPT(plan(width=32).config)
    inputs = torch.randint(0, 90, (8, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), inputs.flatten()).backward()
        optimizer.step()

    with LocalServer(data) as server:
        port = server.address.rsplit(":", 1)[1]
        client = AdvisorClient(server.address, deadline_s=2)
        client.register_profile("gpt", recorded())
        attachment = fslr.torch.attach(
            model,
            optimizer,
            profile="gpt",
            advisor=client,
            run=RunInfo(policy=OFTEN),
        )
        step()
        os.kill(server.pid, signal.SIGKILL)
        for _ in range(6):
            step()
        in_force = attachment.multipliers
        eventually(lambda: attachment.unanswered > 0)
        assert attachment.multipliers == in_force
    with LocalServer(data, "--port", port):

        def answered_again() -> bool:
            step()
            return attachment.answer is not None and attachment.answer.step > 6

        assert eventually(answered_again, within_s=30)
    assert attachment.failures == 0
    attachment.close()
    client.close()


def test_the_demo_runs_end_to_end_at_a_small_size(tmp_path: Path, server: LocalServer) -> None:
    from benchmarks.demo.experiment import run_demo
    from tests.training_jobs import corpus

    @contextmanager
    def silent(_what: str, _steps: int) -> Iterator[Callable[[float], None]]:
        yield lambda _loss: None

    result = run_demo(
        DemoPlan(base_width=16, width=32, blocks=1, steps=30, octaves=(-6, -7)),
        corpus(),
        server.address,
        silent,
    )
    assert result.learning_rate == min(result.sweep, key=lambda rate: result.sweep[rate])
    assert len(result.advised.losses) == len(result.plain.losses) == 30
    assert result.plain_sweep[result.learning_rate] == result.plain.validation_loss
    best = min(result.plain_sweep, key=lambda rate: result.plain_sweep[rate])
    assert min(result.plain_sweep) < best < max(result.plain_sweep)
    assert [e.measurement.step for e in result.advised_events] == [0, 25]
    pictures = draw_all(result, 32, tmp_path)
    assert [p.name for p in pictures] == ["losses.png", "rates.png", "multipliers.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    json.dumps(result.sweep)
