"""Many runs in one process, closed or dropped: no threads, descriptors or models are left."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import fslr.torch
from advisor.local.server import LocalServer
from fslr import AdvisorClient
from fslr.advisor.v1 import policy_pb2
from tests.waiting import eventually

OFTEN = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=2)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


def register(server: LocalServer, project: str) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    provenance = fslr.Provenance("m", width=4, depth=1, dataset="d", batch_size=8, commit="c")
    with fslr.torch.Recorder(model, optimizer, every=2, provenance=provenance) as recorder:
        train(model, optimizer, 6)
    with AdvisorClient(server.address) as client:
        client.register_profile("linear", recorder.profile(), project=project)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("is_closed", [True, False])
def test_runs_leave_nothing_behind(is_closed: bool, server: LocalServer, project: str) -> None:
    register(server, project)

    def one_run() -> weakref.ref[nn.Module]:
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        attachment = fslr.torch.attach(
            model,
            optimizer,
            profile="linear",
            advisor=server.address,
            run=fslr.RunInfo(project=project, policy=OFTEN),
        )
        train(model, optimizer, 3)
        if is_closed:
            attachment.close()
        return weakref.ref(model)

    def python_threads() -> set[threading.Thread]:
        gc.collect()
        return set(threading.enumerate())

    one_run()
    gc.collect()
    os.sched_yield()
    before, opened = threading.active_count(), descriptors()
    models = [one_run() for _ in range(8)]
    eventually(lambda: len(python_threads()) <= max(before, 1) + 1)
    assert descriptors() <= opened + 4
    assert not any(model() for model in models)


def test_a_run_goes_on_while_only_its_optimizer_is_kept(server: LocalServer, project: str) -> None:
    register(server, project)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    fslr.torch.attach(
        model,
        optimizer,
        profile="linear",
        advisor=server.address,
        run=fslr.RunInfo("kept", project=project, policy=OFTEN),
    )
    gc.collect()
    with AdvisorClient(server.address) as client:

        def measured() -> bool:
            train(model, optimizer, 2)
            runs = list(client.list_runs(project=project))
            return bool(runs) and runs[0].measurements >= 3

        assert eventually(measured)
