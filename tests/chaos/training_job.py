"""A training job that gets advice while faults are injected; runs until its input ends.

Usage: python -m tests.chaos.training_job HISTORY ADDRESS PROJECT DEADLINE_S NAME

The loop is a real one, with a model, an optimizer and :func:`fslr.torch.attach`. The time of each
step is recorded with the multipliers in force.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

import fslr.torch
from fslr import AdvisorClient, RunInfo, ServiceError
from fslr.advisor.v1 import policy_pb2
from tests.chaos.history import Recorder
from tests.chaos.recording import RecordedAdvisor

_PROFILE = "trained"
_STEPS = 150  # of one training, before the next one starts
_STEPS_PER_NOTE = 25
_PAUSE_S = 0.01  # as a larger model would take
_FREQUENT = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=4)


def train(
    advisor: RecordedAdvisor,
    recorder: Recorder,
    project: str,
    name: str,
    suffix: str,
    end: threading.Event,
) -> None:
    """Train a new model and record how long its steps take."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    data = torch.randn(16, 4)
    seconds: list[float] = []
    in_force: list[float] = []
    with fslr.torch.attach(
        model,
        optimizer,
        profile=f"{_PROFILE}@{suffix}" if suffix else _PROFILE,
        advisor=advisor,
        run=RunInfo(project=project, policy=_FREQUENT),
        strict=False,
    ) as attachment:
        for step in range(_STEPS):
            optimizer.zero_grad()
            model(data).square().sum().backward()
            started = time.monotonic()
            optimizer.step()
            seconds.append(time.monotonic() - started)
            in_force += [min(attachment.multipliers), max(attachment.multipliers)]
            if len(seconds) == _STEPS_PER_NOTE or end.is_set():
                recorder.note("steps", job=f"{name} {step}", seconds=seconds, multipliers=in_force)
                seconds, in_force = [], []
            if end.is_set():
                break
            time.sleep(_PAUSE_S)


def _await_end(end: threading.Event) -> None:
    sys.stdin.read()
    end.set()


def main(history: str, address: str, project: str, deadline_s: float, name: str) -> None:
    """Train one model after another until the input ends."""
    logging.getLogger("fslr").setLevel(logging.CRITICAL)  # failures are expected
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = random.Random(name)
    recorder = Recorder(Path(history), name)
    client = AdvisorClient(address, deadline_s=deadline_s, actor=name)
    end = threading.Event()
    threading.Thread(target=_await_end, args=(end,), daemon=True).start()
    while not end.is_set():
        suffix = rng.choice(("prod", "canary", ""))
        advisor = RecordedAdvisor(client, recorder, _PROFILE, suffix, fixed_rates=False)
        try:
            train(advisor, recorder, project, name, suffix, end)
        except ServiceError as error:
            recorder.note("broken", client=name, error=f"{type(error).__name__}: {error}")
            raise
    client.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5])
