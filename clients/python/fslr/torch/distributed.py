"""Several processes that train one model: sums over ranks, and one rank that speaks for all.

Each rank measures its own examples with its own probes, and the sums of projections are added up.
Every method here is a collective: all ranks call it at the same steps, even if one of them failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fslr.errors import AttachError, MeasurementError
from fslr.torch.estimators import ProjectionSums
from fslr.torch.model.sharding import is_shard

Group = dist.ProcessGroup | Literal["alone"] | None
"""The processes that train the model: a process group, ``"alone"``, or None for the wrapper's."""


class Ranks:
    """The processes that train one model; a single process unless given a group.

    Args:
        group: The process group, or None.
        device: Device of the tensors that are exchanged.
    """

    def __init__(
        self, group: dist.ProcessGroup | None = None, device: torch.device | None = None
    ) -> None:
        self._group = group
        self._device = device
        self.rank = 0 if group is None else dist.get_rank(group)
        self.count = 1 if group is None else dist.get_world_size(group)

    @property
    def speaks(self) -> bool:
        """Whether this rank talks to the advisor."""
        return self.rank == 0

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether it is set on any rank."""
        found: list[bool] = (self._sum(_on_host(flags)) > 0).tolist()
        return found

    def least(self, number: int) -> int:
        """Return the smallest of all ranks' numbers."""
        return int(self._reduced(_on_host([number]), dist.ReduceOp.MIN))

    def sum(self, sums: ProjectionSums | None, groups: int) -> ProjectionSums:
        """Return the sums over all ranks; with a Gram matrix if every rank has one.

        Args:
            sums: The sums of this rank; None if it could not measure.
            groups: Number of groups.

        Raises:
            MeasurementError: A rank could not measure.
        """
        if self.count == 1 and sums is not None:
            return sums
        # The ranks first agree on what all of them have: a Gram matrix is large and optional.
        failed, with_gram, *totals = self._sum(_counts(sums)).tolist()
        if failed or sums is None:
            raise MeasurementError(
                f"{int(failed)} of {self.count} ranks could not measure; see the logs of the others"
            )
        elements, examples, probes, changes, residuals = totals
        # Ranks may use different numbers of probes, if their batches need different routes.
        parts = [sums.squares / sums.probes, sums.fourths / sums.probes**2]
        if sums.gram is not None and with_gram == self.count:
            parts.append(sums.gram.flatten() / sums.probes)
        summed = self._sum(torch.from_numpy(np.concatenate(parts))).numpy()
        squares, fourths, *gram = np.split(summed, np.cumsum([len(part) for part in parts])[:-1])
        mean_probes = int(probes) // self.count
        return ProjectionSums(
            squares * mean_probes,
            fourths * mean_probes**2,
            elements,
            int(examples),
            mean_probes,
            gram[0].reshape(groups, groups) * mean_probes if gram else None,
            changes or None,  # a rank on which nothing counts does not know them
            residuals if changes else None,
        )

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of all ranks' float64 tensors on the host."""
        return self._sum(values)

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        """Return the speaking rank's values; all ranks pass the same number of them."""
        if self.count == 1:
            return list(values)
        tensor = _on_host(values).to(self._device)
        dist.broadcast(tensor, group=self._group, group_src=0)
        spoken: list[float] = tensor.tolist()
        return spoken

    def text_from_speaker(self, text: str) -> str:
        """Return the speaking rank's text."""
        if self.count == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, group=self._group, group_src=0, device=self._device)
        return box[0]

    def _sum(self, values: Tensor) -> Tensor:
        return self._reduced(values, dist.ReduceOp.SUM)

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        """Return host values reduced over all ranks, on the host."""
        if self.count == 1:
            return values
        exchanged = values.to(self._device, copy=True)
        dist.all_reduce(exchanged, how, group=self._group)
        return exchanged.cpu()


def _on_host(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64, device="cpu")


def _counts(sums: ProjectionSums | None) -> Tensor:
    """Return whether a rank failed, whether it has a Gram matrix, and its scalar sums."""
    if sums is None:
        return _on_host([1, 0, 0, 0, 0, 0, 0])
    numbers = sums.elements, sums.examples, sums.probes, sums.changes or 0.0, sums.residuals or 0.0
    return _on_host([0, sums.gram is not None, *numbers])


def uneven_steps(model: nn.Module) -> str:
    """Return why the ranks cannot do anything together now; empty: they can.

    Inside of ``join()`` of DistributedDataParallel, a rank that has no more batches answers the
    collectives of the others' model, and those only.

    Args:
        model: The model, in its wrapper.
    """
    config = getattr(model, "_join_config", None)
    if config is None or not config.enable or config.throw_on_early_termination:
        return ""
    return (
        "the training runs inside of join(), where ranks may make different numbers of steps, so "
        "they can neither measure a step together nor change multipliers; give each rank equally "
        "many batches, or use join(throw_on_early_termination=True)"
    )


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model's parameters are sharded over several ranks (FSDP2)."""
    return any(is_shard(parameter) for parameter in model.parameters())


def ranks_of(model: nn.Module, group: Group = None) -> Ranks:
    """Return the ranks that train a model.

    Args:
        model: The model, in its wrapper if it has one.
        group: The processes that train it; None: those of its wrapper.

    Raises:
        AttachError: There are several processes and no wrapper or group that says whether they
            train one model, or the parameters are on a mesh of several dimensions.
    """
    if group == "alone" or not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    if group is None:
        group = _group_of(model)
    if group is None:
        if dist.get_world_size() == 1:
            return Ranks()
        raise AttachError(
            f"there are {dist.get_world_size()} processes, and the model is not wrapped; pass the "
            "DistributedDataParallel module or the one that fully_shard was applied to, or set "
            "process_group=torch.distributed.group.WORLD if they train one model, or "
            'process_group="alone" if each trains its own'
        )
    device = next(model.parameters()).device
    return Ranks(group, torch.device("cpu") if dist.get_backend(group) == "gloo" else device)


def _group_of(model: nn.Module) -> dist.ProcessGroup | None:
    if isinstance(model, nn.parallel.DistributedDataParallel):
        group: dist.ProcessGroup = model.process_group
        return group
    for parameter in model.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None:
            if mesh.ndim > 1:
                raise AttachError(
                    f"the parameters are on a device mesh of {mesh.ndim} dimensions; set "
                    "process_group=... to the processes that train the model together"
                )
            sharded: dist.ProcessGroup = mesh.get_group()
            return sharded
    return None
