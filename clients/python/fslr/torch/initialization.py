"""Scales the initial weights of a model once, before its first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fslr.errors import AttachError
from fslr.torch.distributed import Ranks
from fslr.torch.model.groups import ModelGroups, has_stepped, keeps_no_record
from fslr.torch.model.sharding import is_shard
from fslr.torch.optimizers import inner_optimizers
from fslr.torch.steps.scaling import Choice
from fslr.training.initial_scaling import listed
from fslr.training.parameter_words import NORM_CLASS
from fslr.training.trained_weights import (
    FEWEST,
    sizes_vary,
    unequal_entries,
    unequal_matrices,
)

_REMEDY = "nothing was changed; attach before a checkpoint is loaded, or pass initialize=False"


def refuse_initialization(
    model: nn.Module,
    groups: ModelGroups,
    optimizers: Sequence[torch.optim.Optimizer],
    choices: Sequence[Choice],
    ranks: Ranks,
    *,
    observe_only: bool,
    first_step: int,
) -> None:
    """Refuse to scale weights that are not initial ones; all ranks call it and decide alike.

    Args:
        model: The model.
        groups: Its groups.
        optimizers: The optimizers, as their user passes them.
        choices: How their steps are scaled; empty if the run only observes.
        ranks: The processes that train the model.
        observe_only: Whether the run only observes.
        first_step: Number of steps that the training has made before.

    Raises:
        AttachError: The run only observes; the training or an optimizer has made a step; an
            optimizer keeps weights of its own; a tensor has no values yet; or the weights look
            trained.
    """
    if observe_only:
        raise AttachError(
            "initialize=True scales the initial weights, but observe_only=True changes nothing; "
            "leave one of them out"
        )
    if first_step:
        raise AttachError(
            f"initialize=True scales initial weights, but first_step is {first_step}; {_REMEDY}"
        )
    _refuse_optimizers(optimizers, choices)
    empty = [group.name for group in groups if group.parameter.is_meta]
    if empty:
        raise AttachError(
            f"initialize=True scales initial weights, but {listed(empty)} have no values yet; "
            "nothing was changed; initialize the model first"
        )
    with torch.no_grad():
        evidence = _unequal_norms(model, groups) or _unequal_rows([g.parameter for g in groups])
    if ranks.any([bool(evidence)])[0]:
        seen = evidence or "those of another rank do"
        raise AttachError(
            f"initialize=True scales initial weights, but these look trained: {seen}; {_REMEDY}"
        )


def _refuse_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], choices: Sequence[Choice]
) -> None:
    for optimizer, choice in zip(optimizers, choices, strict=True):
        for inner in inner_optimizers(optimizer):
            if has_stepped(inner):
                raise AttachError(
                    f"initialize=True scales initial weights, but {type(inner).__name__} has made "
                    f"steps already; {_REMEDY} (a resumed run loads its attachment's state)"
                )
            if keeps_no_record(inner) and any(
                p.grad is not None for group in inner.param_groups for p in group["params"]
            ):
                raise AttachError(
                    "initialize=True scales initial weights, but there are gradients, and SGD "
                    "without momentum does not show whether it has made a step; nothing was "
                    "changed; attach before the first backward pass, or pass initialize=False"
                )
        if not choice.is_correctable:
            raise AttachError(
                f"initialize=True scales initial weights, but {type(optimizer).__name__} keeps "
                "weights of its own, which it would step from; nothing was changed; use a "
                "different optimizer, or pass initialize=False"
            )


@torch.no_grad()
def scale_weights(groups: ModelGroups, factors: Sequence[float]) -> None:
    """Multiply the tensors of a model in place.

    Args:
        groups: The model's groups; tied parameters are one of them.
        factors: One for each group.
    """
    for group, factor in zip(groups, factors, strict=True):
        if factor != 1.0:
            group.parameter.mul_(factor)


def _unequal_norms(model: nn.Module, groups: ModelGroups) -> str:
    """Return which norm has unequal gains or biases; initial ones are all the same number."""
    for name, module in model.named_modules():
        if not NORM_CLASS.search(type(module).__name__):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            values = _local(parameter)
            if groups.index_of(parameter) is not None and values.numel() > 1:
                low, high = values.min().item(), values.max().item()
                if evidence := unequal_entries(f"{name}.{own}", low, high):
                    return evidence
    return ""


def _unequal_rows(parameters: Sequence[Tensor]) -> str:
    """Return how many matrices have rows or columns whose sizes differ more than by chance."""
    matrices = [m for p in parameters if (m := _matrix(p)) is not None]
    return unequal_matrices([any(map(_varies, (matrix, matrix.T))) for matrix in matrices])


def _matrix(parameter: Tensor) -> Tensor | None:
    values = _local(parameter)
    if values.dim() < 2 or values.is_complex() or not values.is_floating_point():
        return None
    matrix = values.flatten(1).float()
    return matrix if min(matrix.shape) >= FEWEST and matrix.any() else None


def _varies(matrix: Tensor) -> bool:
    squares = matrix.square()
    kurtosis = squares.square().mean() / squares.mean().square()
    return sizes_vary(squares.mean(1).tolist(), kurtosis.item(), matrix.shape[1])


def _local(parameter: Tensor) -> Tensor:
    values: Tensor = parameter.detach()
    return values.to_local() if is_shard(values) else values  # type: ignore[attr-defined]
