"""The procedures that are compared: ours, the paper's, and none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from advisor.local.in_process import InProcessAdvisor
from benchmarks.training import loss_of
from benchmarks.workloads import Workload
from fslr import RunInfo
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach

INTERVAL_STEPS = 100
FIRST_STEPS = 40
"""The paper's procedure measures each of these first steps."""

Attach = Callable[[nn.Module, torch.optim.Optimizer], Attachment | Recorder | None]


def paper_procedure(model: nn.Module, optimizer: torch.optim.Optimizer) -> Recorder:
    """Return the paper's procedure: one probe at each of the first 40 steps, then every 100 steps.

    The authors measure the update of the first step with 40 probes, which costs the same.
    """
    return Recorder(
        model,
        optimizer,
        every=lambda step: 1 if step + 1 < FIRST_STEPS else INTERVAL_STEPS,
        options=MeasuringOptions(estimator="kronecker", linearity=False, averaging=0.9),
    )


def procedures(workload: Workload, steps: int, *, host: bool, seed: int) -> dict[str, Attach]:
    """Return the function that attaches each procedure, by name.

    Args:
        workload: What is trained.
        steps: Steps of each training.
        host: Whether our snapshot is kept in the host's memory.
        seed: Seed of the profile's weights and data.
    """
    advisor = InProcessAdvisor(_reference(workload, seed))
    # The multipliers hardly change the training.
    policy = policy_pb2.Policy(
        min_interval_steps=INTERVAL_STEPS,
        max_interval_steps=INTERVAL_STEPS,
        min_multiplier=0.98,
        max_multiplier=1.02,
    )
    options = MeasuringOptions(snapshot_on_host=host)

    def ours(model: nn.Module, optimizer: torch.optim.Optimizer) -> Attachment:
        return attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            run=RunInfo(policy=policy, total_steps=steps),
            options=options,
        )

    def plain(_model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        """Attach nothing."""

    return {"plain": plain, "ours": ours, "paper": paper_procedure, "control": plain}


def _reference(workload: Workload, seed: int) -> profile_pb2.ProfileContent:
    """Record one step of the same model as the profile."""
    torch.manual_seed(seed)
    model = workload.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.learning_rate)
    with Recorder(model, optimizer) as recorder:
        inputs, targets = workload.draw(torch.Generator().manual_seed(seed))
        loss_of(model, inputs, targets).backward()
        optimizer.step()
    return recorder.profile(workload.name)
