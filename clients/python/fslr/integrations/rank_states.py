"""The states of an attachment or a recorder on all processes, in one process's checkpoint."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from fslr.errors import AttachError
from fslr.training.checkpoints import Stateful


def states_of_ranks(part: Stateful) -> dict[str, Any]:
    """Return the states of all processes, since each draws its own probes.

    It is a collective: all processes call it together.

    Args:
        part: The attachment or recorder of this process.
    """
    own = part.state_dict()
    if not dist.is_available() or not dist.is_initialized():
        return {"processes": [own]}
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, own)
    return {"processes": states}


def load_state_of_rank(part: Stateful, state: dict[str, Any]) -> None:
    """Continue where :func:`states_of_ranks` was called.

    Args:
        part: The attachment or recorder of this process.
        state: The dictionary that was returned. If there were fewer processes, those that are new
            continue as the first one.

    Raises:
        AttachError: The state belongs to something else.
    """
    states = state.get("processes")
    if not isinstance(states, list) or not states:
        raise AttachError(
            "the checkpoint has the state of something else in this place; register objects and "
            "attach in the same order as before the checkpoint was saved"
        )
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    part.load_state_dict(states[rank if rank < len(states) else 0])
