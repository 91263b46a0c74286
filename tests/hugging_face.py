"""Tiny trainings of the Hugging Face ``Trainer`` on random tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

VOCABULARY = 32
LENGTH = 12
PROMPT = 4  # tokens at the front of each example whose labels are ignored


def gpt2(width: int = 16, blocks: int = 1, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=LENGTH,
            n_embd=width,
            n_layer=blocks,
            n_head=2,
            bos_token_id=None,
            eos_token_id=None,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
        )
    )
    return model


def examples(count: int = 48) -> list[dict[str, Tensor]]:
    """Return sequences of tokens; the labels of their prompts are ignored."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        tokens = torch.randint(0, VOCABULARY, (LENGTH,), generator=generator)
        labels = torch.where(torch.arange(LENGTH) < PROMPT, -100, tokens)
        found.append({"input_ids": tokens, "labels": labels})
    return found


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    return TrainingArguments(**{
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **changes,
    })


def trainer(
    folder: Path, *callbacks: TrainerCallback, model: nn.Module | None = None, **changes: Any
) -> Trainer:
    return Trainer(
        model or gpt2(),
        arguments(folder, **changes),
        train_dataset=examples(),
        callbacks=list(callbacks),
    )


class StopAfter(TrainerCallback):
    """Stops a training after a step, and saves a checkpoint then.

    Args:
        step: The number of steps.
    """

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, *states: Any, **_: Any) -> Any:
        _, state, control = states
        if state.global_step == self._step:
            control.should_save = control.should_training_stop = True
        return control


def weights(model: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]
