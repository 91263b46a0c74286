"""Train LoRA adapters of a high rank with the rates of a low rank, with PEFT.

    pip install '.[transformers]' peft rich
    python examples/lora_across_ranks.py

A small GPT-2 is pretrained on Python's own documentation, byte by byte. Its adapters then learn
Python's source code: those of rank 4 are recorded as a profile, and those of rank 64 train twice at
the same learning rate, plain and with advice. Both factors of an adapter have one multiplier.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from pydoc_data.topics import topics
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

import fslr
import fslr.torch
from advisor.local.in_process import InProcessAdvisor

LENGTH, BATCH, RANK, WIDE_RANK = 64, 8, 4, 64
OPTIONS = fslr.torch.MeasuringOptions(output="logits")


def batches(text: str, steps: int) -> Iterator[Tensor]:
    """Yield parts of a text as bytes, [B, T]."""
    data = torch.tensor(list(text.encode()), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(len(data) - LENGTH, (BATCH, 1), generator=generator)
        yield data[starts + torch.arange(LENGTH)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, text: str, steps: int) -> float:
    """Train on a text, and return the mean loss of the last 20 steps."""
    losses: list[float] = []
    for tokens in batches(text, steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / len(losses[-20:])


def pretrained(steps: int) -> nn.Module:
    """Return a small GPT-2 that has learned from Python's help topics."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=256,
            n_positions=LENGTH,
            n_embd=64,
            n_layer=2,
            n_head=4,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    train(model, optimizer, "".join(topics.values()), steps)
    return model


def adapt(
    base: nn.Module,
    rank: int,
    steps: int,
    attach: Callable[[nn.Module, torch.optim.Optimizer], Any] | None = None,
) -> tuple[float, Any]:
    """Train adapters of a frozen model; return the loss, and what was attached.

    Args:
        base: The pretrained model, which stays unchanged.
        rank: Rank of the adapters.
        steps: Number of steps.
        attach: Attaches the model with adapters and its optimizer.
    """
    torch.manual_seed(1)
    targets = ["c_attn", "c_proj", "c_fc"]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, fan_in_fan_out=True)
    model = get_peft_model(copy.deepcopy(base), config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    attached = attach(model, optimizer) if attach else None
    loss = train(model, optimizer, inspect.getsource(argparse), steps)
    if attached is not None:
        attached.close()
    return loss, attached


def main() -> None:
    """Pretrain, record adapters of a low rank, and train those of a high rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="steps of each training")
    steps = parser.parse_args().steps
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of what PEFT uses of transformers
    base = pretrained(2 * steps)

    provenance = fslr.Provenance(
        "GPT-2 with LoRA", width=64, depth=2, dataset="argparse.py", batch_size=BATCH
    )

    def recorder(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Recorder:
        return fslr.torch.Recorder(
            model, optimizer, every=10, provenance=provenance, options=OPTIONS
        )

    low, recorded = adapt(base, RANK, steps, recorder)
    advisor = InProcessAdvisor(recorded.profile())

    def attachment(model: nn.Module, optimizer: torch.optim.Optimizer) -> fslr.torch.Attachment:
        return fslr.torch.attach(
            model, optimizer, profile="lora", advisor=advisor, total_steps=steps, options=OPTIONS
        )

    plain, _ = adapt(base, WIDE_RANK, steps)
    advised, attached = adapt(base, WIDE_RANK, steps, attachment)

    console = Console()
    console.print(f"rank {RANK}, recorded:            loss {low:.3f}")
    console.print(f"rank {WIDE_RANK}, same learning rate: loss {plain:.3f}")
    console.print(f"rank {WIDE_RANK}, with advice:        loss {advised:.3f}")
    for name, advice in attached.by_name().items():
        if "lora_A" in name:
            short = name.removeprefix("base_model.model.transformer.").split(".lora_A")[0]
            console.print(f"  {short:20} multiplier {advice.multiplier:.3g} ({advice.outcome})")


if __name__ == "__main__":
    main()
