"""What a Hugging Face ``Trainer`` knows of its training, for attachments and recorders."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import nn

from fslr.errors import AttachError
from fslr.integrations.label_masks import label_mask, without_adapters
from fslr.torch import MeasuringOptions
from fslr.torch.calls.measured_modules import is_being_measured
from fslr.torch.distributed import Group, is_sharded
from fslr.training.recording import Provenance
from fslr.training.run_info import RunInfo

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

_STEPS_IN_BACKWARD = ("lomo", "layerwise")  # in names of optimizers


def check_arguments(args: TrainingArguments, optimizer: object = None) -> None:
    """Refuse a trainer whose steps cannot be measured, or not scaled.

    Args:
        args: The trainer's arguments.
        optimizer: The trainer's optimizer, once it exists.

    Raises:
        AttachError: DeepSpeed or the optimizer steps inside of the backward pass, or the model is
            replicated over the devices of one process.
    """
    kind = str(getattr(args.distributed_state, "distributed_type", "")).upper()
    if args.deepspeed or "DEEPSPEED" in kind or "DeepSpeed" in type(optimizer).__name__:
        raise AttachError(
            "under DeepSpeed the backward pass makes the optimizer's step, where it can neither be "
            "measured nor scaled; train with DistributedDataParallel or FSDP2, or write what a "
            "finished run or a profile recommends as parameter groups for DeepSpeed: `advisor "
            "export --to deepspeed`"
        )
    name = str(getattr(args.optim, "value", args.optim))
    if any(part in name for part in _STEPS_IN_BACKWARD):
        raise AttachError(
            f"optim={name!r} steps each tensor inside of the backward pass, where a step can "
            "neither be measured nor scaled; use an optimizer that steps after it, such as "
            "'adamw_torch'"
        )
    if args.n_gpu > 1:
        raise AttachError(
            f"the trainer replicates the model over {args.n_gpu} devices of one process "
            "(DataParallel), whose calls cannot be measured; start one process for each device: "
            f"torchrun --nproc-per-node {args.n_gpu} SCRIPT"
        )


def measuring(
    options: MeasuringOptions | None,
    model: nn.Module,
    args: TrainingArguments,
    *,
    ignored_labels: bool,
) -> MeasuringOptions:
    """Return how to measure, with the model's logits and labels where nothing else is said.

    Args:
        options: What the user said.
        model: The model.
        args: The trainer's arguments.
        ignored_labels: Whether outputs whose label is -100 are left out.

    Raises:
        AttachError: The trainer keeps the labels from the model, and nothing says what counts.
    """
    options = options or MeasuringOptions()
    if options.output is None:
        options = dataclasses.replace(options, output="logits")
    if options.mask is not None or not ignored_labels:
        return options
    if args.label_smoothing_factor > 0:
        raise AttachError(
            "with label_smoothing_factor the trainer calls the model without labels, so which "
            "outputs are ignored is not known; pass ignored_labels=False to count every output, or "
            "options=fslr.torch.MeasuringOptions(output='logits', mask='attention_mask')"
        )
    return dataclasses.replace(options, mask=label_mask(model))


def process_group(model: nn.Module, args: TrainingArguments) -> Group:
    """Return the processes that train the model; None: one process, or those that shard it.

    Args:
        model: The model inside of its wrappers.
        args: The trainer's arguments.
    """
    if args.world_size == 1 or not dist.is_initialized() or is_sharded(model):
        return None
    return dist.group.WORLD


def described_run(run: str | RunInfo, args: TrainingArguments, state: TrainerState) -> RunInfo:
    """Return what a run tells the advisor, with what the trainer knows.

    Args:
        run: What the user said.
        args: The trainer's arguments.
        state: The trainer's state.
    """
    info = RunInfo(name=run) if isinstance(run, str) else run
    return dataclasses.replace(
        info,
        total_steps=info.total_steps or max(state.max_steps, 0),
        batch_size=info.batch_size or _examples_per_step(args, state),
    )


def provenance_of(
    provenance: Provenance | str | None,
    model: nn.Module,
    args: TrainingArguments,
    state: TrainerState,
) -> Provenance:
    """Return where a profile comes from, with what the model and the trainer know.

    Args:
        provenance: What the user said.
        model: The model.
        args: The trainer's arguments.
        state: The trainer's state.
    """
    if not isinstance(provenance, Provenance):
        provenance = Provenance(provenance or type(without_adapters(model)).__name__)
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return dataclasses.replace(
        provenance,
        width=provenance.width or _size(text, "hidden_size"),
        depth=provenance.depth or _size(text, "num_hidden_layers"),
        batch_size=provenance.batch_size or _examples_per_step(args, state),
    )


def _size(config: object, name: str) -> int:
    size = getattr(config, name, 0)
    return size if isinstance(size, int) else 0


def _examples_per_step(args: TrainingArguments, state: TrainerState) -> int:
    batch_size = state.train_batch_size or args.train_batch_size
    return int(batch_size * args.gradient_accumulation_steps * args.world_size)


def with_logits(model: nn.Module) -> Callable[[], None]:
    """Let measurements of a model have logits where TRL computes the loss without them.

    Args:
        model: The model that the trainer calls, inside of its wrappers.

    Returns:
        What ends it.
    """
    if "trl" not in sys.modules:
        return _do_nothing
    return model.register_forward_pre_hook(_without_fused_head, with_kwargs=True).remove


def _without_fused_head(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Ask TRL's models for logits in measurements, as they return them everywhere else."""
    if "fused_lm_head" not in kwargs or not is_being_measured(model):
        return None
    return args, {name: value for name, value in kwargs.items() if name != "fused_lm_head"}


def _do_nothing() -> None:
    """Remove no hook."""
