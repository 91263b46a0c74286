"""The root mean square of each tensor of a model, for comparing initial weights with a base's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from fslr.torch.model.sharding import is_shard
from fslr.torch.model.sums import summed_as


@torch.no_grad()
def rms_of(parameters: Sequence[nn.Parameter]) -> list[float | None]:
    """Return the root mean square of each tensor's entries.

    The device is waited for once. If tensors are sharded, this is a collective: each mesh has one
    sum over its ranks.

    Args:
        parameters: The tensors.

    Returns:
        One number for each tensor; None where a tensor has no values (on the meta device, without
        entries), values that are not finite, or no norm.
    """
    norms: dict[int, Tensor] = {}
    meshes: dict[int, DeviceMesh] = {}
    for index, parameter in enumerate(parameters):
        if parameter.is_meta or not parameter.numel():
            continue
        values: Any = parameter.detach()
        mesh = values.device_mesh if is_shard(values) else None
        local = values if mesh is None else values.to_local()
        try:
            norms[index] = torch.linalg.vector_norm(local, dtype=summed_as(local))
        except NotImplementedError:  # a class of tensors with functions of its own
            continue
        if mesh is not None:
            meshes[index] = mesh
    if not norms:
        return [None] * len(parameters)
    device = next(iter(norms.values())).device
    squares = {index: norm.to(device, torch.float32).square() for index, norm in norms.items()}
    for mesh in dict.fromkeys(meshes.values()):
        indices = [index for index, of in meshes.items() if of == mesh]
        totals = torch.stack([squares[index] for index in indices]).to(mesh.device_type)
        dist.all_reduce(totals, group=mesh.get_group(mesh.ndim - 1))
        squares.update(zip(indices, totals.to(device), strict=True))
    found = dict(zip(squares, torch.stack([*squares.values()]).tolist(), strict=True))
    return [
        _root_mean(found[index], parameter.shape.numel()) if index in found else None
        for index, parameter in enumerate(parameters)
    ]


def _root_mean(square_sum: float, count: int) -> float | None:
    rms = math.sqrt(square_sum / count)
    return rms if math.isfinite(rms) else None
