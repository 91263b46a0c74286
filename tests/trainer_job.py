"""One rank of a training by a trainer on two ranks; tests/e2e/test_trainers_on_ranks.py runs it.

Usage: python -m tests.trainer_job KIND RANK PORT FOLDER, with KIND hugging-face or lightning. It
trains as a whole, and again with an interruption. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from fslr import RunInfo
from fslr.advisor.v1 import policy_pb2
from tests.building import content_message

_POLICY = policy_pb2.Policy(min_interval_steps=2, max_interval_steps=2)


def advice(names: list[str], *, talks: bool, total_steps: int = 0) -> dict[str, Any]:
    """Return arguments of a callback; on a rank that should not talk, its advisor refuses."""
    advisor = InProcessAdvisor(content_message(names, rate=0.3))

    def refuse(*_: object) -> None:
        raise AssertionError("only rank 0 talks to the advisor")

    if not talks:
        advisor.validate_layout = advisor.open_run = refuse  # type: ignore[method-assign,assignment]
    return {
        "profile": "x",
        "advisor": advisor,
        "run": RunInfo(policy=_POLICY, total_steps=total_steps),
        "answers": "wait",
        "max_overhead": None,
    }


def outcome(attachment: fslr.torch.Attachment | None, model: Any) -> dict[str, Any]:
    """Return what the ranks have in common, and a resumed training with the whole one."""
    assert attachment is not None
    assert attachment.estimate is not None
    return {
        "multipliers": attachment.multipliers,
        "rates": attachment.estimate.unit_rates,
        "examples": attachment.estimate.examples,
        "step": attachment.step,
        "failures": attachment.failures,
        "weights": [parameter.detach().double().sum().item() for parameter in model.parameters()],
    }


def hugging_face(rank: int, folder: Path) -> dict[str, Any]:
    from fslr.integrations.transformers import AdviceCallback
    from tests.hugging_face import StopAfter, gpt2, trainer

    names = [name for name, _ in gpt2().named_parameters()]

    def train(folder: Path, *others: Any, resume: bool = False) -> dict[str, Any]:
        callback = AdviceCallback(**advice(names, talks=rank == 0))
        one = trainer(folder, callback, *others, per_device_train_batch_size=2)
        one.train(resume_from_checkpoint=resume)
        return outcome(callback.attachment, one.model)

    whole = train(folder / "whole")
    train(folder / "parts", StopAfter(3))
    saved = sorted(path.name for path in (folder / "parts" / "checkpoint-3").glob("fslr*"))
    return {"whole": whole, "resumed": train(folder / "parts", resume=True), "saved": saved}


def lightning(rank: int, folder: Path) -> dict[str, Any]:
    from fslr.integrations.lightning import AdviceCallback
    from tests.lightning_modules import Bypassing, equal_batches, net, trainer

    names = [name for name, _ in net().named_parameters()]
    file = folder / "half.ckpt"

    def train(steps: int, resume: Path | None = None) -> dict[str, Any]:
        callback = AdviceCallback(**advice(names, talks=rank == 0, total_steps=7))
        module = Bypassing()
        # The batches are equal; a sampler would shuffle them, in a different order once resumed.
        how = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
        one = trainer(folder, callback, max_steps=steps, **how)
        one.fit(module, equal_batches(), ckpt_path=resume)
        if steps == 3:
            one.save_checkpoint(file)
        return outcome(callback.attachment, module)

    whole = train(7)
    train(3)
    return {"whole": whole, "resumed": train(7, file)}


def main(kind: str, rank: str, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    train = {"hugging-face": hugging_face, "lightning": lightning}[kind]
    print(json.dumps(train(int(rank), Path(folder))))


if __name__ == "__main__":
    main(*sys.argv[1:])
