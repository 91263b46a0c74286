"""Fine-tune with TRL's SFTTrainer: tune a small GPT-2, and train a wider one with its rates.

    pip install '.[transformers]' trl rich
    python examples/trl_sft.py

Both learn to write the start of a topic of Python's own documentation after its title, byte by
byte. Only the bytes of the completions count, for the loss and for the rates. The wide model trains
twice at the small one's learning rate: plain, and with advice from its profile.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from rich.console import Console
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

import fslr
from advisor.local.in_process import InProcessAdvisor
from fslr.integrations.transformers import AdviceCallback, RecorderCallback

LENGTH, PADDING, END = 96, 256, 257  # bytes of an example; the tokens behind the bytes


def examples(count: int) -> Dataset:
    """Return titles of topics as prompts and parts of their texts as completions, as bytes."""
    generator, titles = torch.Generator().manual_seed(0), sorted(topics)
    rows = []
    for _ in range(count):
        title = titles[int(torch.randint(len(titles), (), generator=generator))]
        prompt, text = f"{title}: ".encode(), topics[title].encode()
        start = int(torch.randint(max(1, len(text) - LENGTH), (), generator=generator))
        tokens = [*prompt, *text[start:]][:LENGTH]
        mask = [int(place >= len(prompt)) for place in range(len(tokens))]
        rows.append({"input_ids": tokens, "completion_mask": mask})
    return Dataset.from_list(rows)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes; it only says which tokens pad and end an example."""
    words = {**{f"<{byte}>": byte for byte in range(256)}, "<pad>": PADDING, "<end>": END}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words)),
        pad_token="<pad>",  # noqa: S106 - not a password
        eos_token="<end>",  # noqa: S106
    )


def gpt2(width: int) -> GPT2LMHeadModel:
    """Return a GPT-2 of two blocks."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=258,
        n_positions=LENGTH,
        n_embd=width,
        n_layer=2,
        n_head=4,
        bos_token_id=END,
        eos_token_id=END,
    )
    return GPT2LMHeadModel(config)


def train(width: int, steps: int, folder: Path, *callbacks: TrainerCallback) -> float:
    """Fine-tune a GPT-2, and return the mean loss of the last fifth of its steps."""
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=steps,
        learning_rate=0.005,
        lr_scheduler_type="linear",
        warmup_steps=steps // 10,
        completion_only_loss=True,
        gradient_checkpointing=False,
        logging_steps=max(1, steps // 5),
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer: Any = SFTTrainer(
        gpt2(width),
        config,
        train_dataset=examples(8 * steps),
        processing_class=tokenizer(),
        callbacks=list(callbacks),
    )
    trainer.train()
    return float([line["loss"] for line in trainer.state.log_history if "loss" in line][-1])


def main() -> None:
    """Record the small model, then train the wide one, plain and advised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps of each training")
    parser.add_argument("--width", type=int, default=128, help="of the wide model; a multiple of 4")
    parser.add_argument("--out", type=Path, default=Path("out/trl"), help="a folder")
    options = parser.parse_args()
    logging.set_verbosity_error()
    disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of what TRL uses of transformers

    recorder = RecorderCallback(
        every=10,
        dense_start_steps=16,
        provenance=fslr.Provenance("GPT-2, width 32", dataset="Python's help topics"),
    )
    small = train(32, options.steps, options.out, recorder)
    plain = train(options.width, options.steps, options.out)
    advice = AdviceCallback(profile="gpt2", advisor=InProcessAdvisor(recorder.profile()))
    advised = train(options.width, options.steps, options.out, advice)

    console = Console()
    console.print(f"width 32, recorded:            loss {small:.3f}")
    console.print(f"width {options.width}, same learning rate: loss {plain:.3f}")
    console.print(f"width {options.width}, with advice:        loss {advised:.3f}")
    console.print(repr(advice.attachment), soft_wrap=True)


if __name__ == "__main__":
    main()
