"""Tune a small GPT-2 with the Hugging Face Trainer, and train a wider one with its rates.

    pip install '.[transformers]' rich
    python examples/hugging_face_trainer.py

Both train on Python's own documentation, byte by byte. The small model's training is recorded as a
profile. The wide model trains twice at the small one's learning rate: plain, and with advice from
that profile. No service is needed: the advice comes from the profile's file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics

import torch
from rich.console import Console
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

import fslr
from advisor.local.in_process import InProcessAdvisor
from fslr.integrations.transformers import AdviceCallback, RecorderCallback

_LENGTH = 64  # bytes in an example


def examples(count: int) -> list[dict[str, Tensor]]:
    """Return parts of Python's help topics as bytes, each with its own bytes as labels."""
    text = torch.tensor(list("".join(topics.values()).encode()), dtype=torch.int64)
    starts = torch.randint(
        len(text) - _LENGTH, (count,), generator=torch.Generator().manual_seed(0)
    )
    parts = [text[start : start + _LENGTH] for start in starts]
    return [{"input_ids": part, "labels": part} for part in parts]


def gpt2(width: int) -> GPT2LMHeadModel:
    """Return a GPT-2 of two blocks."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256,
        n_positions=_LENGTH,
        n_embd=width,
        n_layer=2,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def train(width: int, steps: int, folder: Path, *callbacks: TrainerCallback) -> float:
    """Train a GPT-2, and return the mean loss of the last fifth of its steps."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=steps,
        learning_rate=0.005,
        lr_scheduler_type="linear",
        warmup_steps=steps // 10,
        logging_steps=max(1, steps // 5),
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        gpt2(width), arguments, train_dataset=examples(8 * steps), callbacks=list(callbacks)
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return float(losses[-1])


def main() -> None:
    """Record the small model, then train the wide one, plain and advised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps of each training")
    parser.add_argument("--width", type=int, default=128, help="of the wide model; a multiple of 4")
    parser.add_argument("--out", type=Path, default=Path("out/hugging_face"), help="a folder")
    options = parser.parse_args()
    logging.set_verbosity_error()
    profile = options.out / "gpt2.json"
    options.out.mkdir(parents=True, exist_ok=True)

    recorder = RecorderCallback(
        every=10,
        dense_start_steps=16,
        provenance=fslr.Provenance("GPT-2, width 32", dataset="Python's help topics"),
        save_to=profile,
    )
    small = train(32, options.steps, options.out, recorder)
    plain = train(options.width, options.steps, options.out)
    advice = AdviceCallback(profile="gpt2", advisor=InProcessAdvisor.from_file(profile))
    advised = train(options.width, options.steps, options.out, advice)

    console = Console()
    console.print(f"width 32, recorded:            loss {small:.3f}")
    console.print(f"width {options.width}, same learning rate: loss {plain:.3f}")
    console.print(f"width {options.width}, with advice:        loss {advised:.3f}")
    console.print(repr(advice.attachment), soft_wrap=True)


if __name__ == "__main__":
    main()
