"""A training job whose data loader forks workers while a stream is open; prints its result.

Usage: python -m tests.forking_job ADDRESS PROFILE
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fslr.torch
from fslr import RunInfo
from fslr.advisor.v1 import policy_pb2


def main(address: str, profile: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    data = TensorDataset(torch.randn(32, 4))
    policy = policy_pb2.Policy(min_interval_steps=1, max_interval_steps=2)
    seen = 0
    with fslr.torch.attach(
        model,
        optimizer,
        profile=profile,
        advisor=address,
        run=RunInfo(policy=policy),
    ) as attachment:
        for _ in range(3):  # each epoch forks new workers
            batch: list[Tensor]
            for batch in DataLoader(
                data, batch_size=8, num_workers=2, multiprocessing_context="fork"
            ):
                optimizer.zero_grad()
                model(batch[0]).square().sum().backward()
                optimizer.step()
                seen += len(batch[0])
        result = {"seen": seen, "failures": attachment.failures}
        assert attachment.answer is not None
        result["answered_step"] = attachment.answer.step
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
