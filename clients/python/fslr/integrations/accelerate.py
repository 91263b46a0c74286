"""Accelerate: advice, or a recording, for a training loop of one's own.

::

    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    attachment = attach(accelerator, model, optimizer, profile="char-gpt@prod")
    ...  # the training loop; accelerator.save_state() keeps the attachment's state
    attachment.close()
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

import fslr.torch
from fslr.errors import AttachError
from fslr.integrations.rank_states import load_state_of_rank, states_of_ranks
from fslr.integrations.requirements import required
from fslr.torch.distributed import Group, is_sharded
from fslr.torch.optimizers import Optimizers
from fslr.training.checkpoints import Stateful

with required("accelerate", "1.1", extra="accelerate"):
    from accelerate import Accelerator
    from accelerate.utils import DistributedType


def attach(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizers,
    *,
    profile: str,
    **options: Any,
) -> fslr.torch.Attachment:
    """Let an advisor set the learning-rate multipliers of a training loop with an accelerator.

    The attachment's state is saved by ``accelerator.save_state()`` and restored by
    ``accelerator.load_state()``, for each process.

    Args:
        accelerator: The accelerator.
        model: The model, as ``accelerator.prepare`` returns it.
        optimizer: Its optimizer, as ``accelerator.prepare`` returns it, or several.
        profile: The reference, such as ``char-gpt@prod``.
        **options: Passed on to :func:`fslr.torch.attach`.

    Returns:
        The attachment. Close it when training ends, or use it as a context manager.

    Raises:
        AttachError: The accelerator trains with DeepSpeed or Megatron-LM, or the training cannot be
            attached to.
        ServiceError: The advisor does not answer, or its profile does not suit the model.
    """
    _check(accelerator)
    options.setdefault("process_group", _group(accelerator, model))
    attachment = fslr.torch.attach(model, optimizer, profile=profile, **options)
    accelerator.register_for_checkpointing(CheckpointEntry(attachment))
    return attachment


def record(
    accelerator: Accelerator, model: nn.Module, optimizer: Optimizers, **options: Any
) -> fslr.torch.Recorder:
    """Record a training loop with an accelerator as a profile; the training stays bit-identical.

    What was recorded is saved by ``accelerator.save_state()`` and restored by
    ``accelerator.load_state()``.

    Args:
        accelerator: The accelerator.
        model: The model, as ``accelerator.prepare`` returns it.
        optimizer: Its optimizer, as ``accelerator.prepare`` returns it, or several.
        **options: Passed on to :class:`fslr.torch.Recorder`.

    Returns:
        The recorder.

    Raises:
        AttachError: The accelerator trains with DeepSpeed or Megatron-LM, or the training cannot be
            recorded.
    """
    _check(accelerator)
    options.setdefault("process_group", _group(accelerator, model))
    recorder = fslr.torch.Recorder(model, optimizer, **options)
    accelerator.register_for_checkpointing(CheckpointEntry(recorder))
    return recorder


class CheckpointEntry:
    """The state of an attachment or a recorder on all processes, for the accelerator's checkpoint.

    An accelerator saves what the main process has. Each process draws its own probes, so the main
    one saves the states of all.

    Args:
        part: The attachment or recorder.
    """

    def __init__(self, part: Stateful) -> None:
        self._part = part

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes; all of them call this together."""
        return states_of_ranks(self._part)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned. If there were fewer processes, those that are
                new continue as the first one.

        Raises:
            AttachError: The state belongs to something else, as a checkpoint does whose objects
                were registered in a different order.
        """
        load_state_of_rank(self._part, state)


def _check(accelerator: Accelerator) -> None:
    """Refuse an accelerator whose steps cannot be measured.

    Raises:
        AttachError: DeepSpeed or Megatron-LM makes the steps.
    """
    makers = {DistributedType.DEEPSPEED: "DeepSpeed", DistributedType.MEGATRON_LM: "Megatron-LM"}
    if maker := makers.get(accelerator.distributed_type):
        raise AttachError(
            f"{maker} makes the optimizer's step by itself, where it can neither be measured nor "
            "scaled; train with DistributedDataParallel or FSDP2, or write what a finished run or "
            "a profile recommends as parameter groups: `advisor export`"
        )


def _group(accelerator: Accelerator, model: nn.Module) -> Group:
    """Return the processes that train the model; None: one process, or those of its wrapper."""
    is_wrapped = isinstance(model, nn.parallel.DistributedDataParallel) or is_sharded(model)
    if accelerator.num_processes == 1 or is_wrapped or not dist.is_initialized():
        return None
    return dist.group.WORLD
