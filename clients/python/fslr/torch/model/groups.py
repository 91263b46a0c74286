"""The groups of a model: the tensors that have a multiplier each, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fslr.advisor.v1 import layout_pb2
from fslr.errors import AttachError
from fslr.torch.model.adapters import adapters_of
from fslr.torch.model.forward import unwrap
from fslr.torch.model.initial_weights import rms_of
from fslr.torch.model.kinds import describe
from fslr.torch.model.residual_outputs import residual_outputs_of
from fslr.torch.model.sharding import refuse_foreign_shards, reshard
from fslr.torch.optimizers import Optimizers, checked_optimizers, name_of, updated_by
from fslr.training.adapter_rates import adapter_pairs, all_pairs

_ADAPTERS = frozenset({layout_pb2.GROUP_KIND_ADAPTER_A, layout_pb2.GROUP_KIND_ADAPTER_B})


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """One group of a model: a trainable tensor with its own multiplier.

    Attributes:
        name: The parameter's name in ``model.named_parameters()``.
        parameter: The parameter itself.
        optimizer: Name of the optimizer that updates it.
    """

    name: str
    parameter: nn.Parameter
    optimizer: str = ""


class ModelGroups:
    """The groups of a model in layout order: one per trainable tensor that the optimizer updates.

    Tied parameters (one tensor under several names) are one group with the first name.

    Args:
        model: The model whose parameters are trained.
        optimizers: The optimizer that updates them, or several.

    Raises:
        AttachError: The model or an optimizer is something else or cannot be used; an optimizer
            updates a tensor that is not a parameter of the model; none updates a trainable
            parameter; parameters are sharded by something other than FSDP2; or a lazy module has
            none yet.
    """

    def __init__(self, model: nn.Module, optimizers: Optimizers) -> None:
        check_model(model)
        given = checked_optimizers(optimizers)
        model = unwrap(model)
        _refuse_lazy(model)
        reshard(model)  # gathered parameters are different tensors
        refuse_foreign_shards(model)
        owners = updated_by(given)
        updated = {key: tensor for key, (tensor, _) in owners.items()}
        named = {id(p): (name.replace("_orig_mod.", ""), p) for name, p in model.named_parameters()}
        foreign = [p for key, p in updated.items() if key not in named]
        if foreign:
            raise AttachError(
                f"the optimizer updates {len(foreign)} tensor(s) that are not parameters of the "
                f"model (first shape: {tuple(foreign[0].shape)}); pass the module that owns "
                "every parameter the optimizer was built with"
            )
        self._groups = [
            ParameterGroup(name, parameter, type(owners[key][1]).__name__)
            for key, (name, parameter) in named.items()
            if key in updated and parameter.requires_grad
        ]
        if not self._groups:
            raise AttachError(
                "the optimizer updates no trainable parameter of the model; "
                "check requires_grad and the parameters that the optimizer was built with"
            )
        trained = {group.name for group in self._groups}
        self._frozen = {name: p.shape.numel() for name, p in named.values() if name not in trained}
        self._model = model
        self._optimizers = list({id(owner): owner for _, owner in owners.values()}.values())
        self._optimizer = name_of(given)
        self._index = {id(group.parameter): i for i, group in enumerate(self._groups)}

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups)

    def __iter__(self) -> Iterator[ParameterGroup]:
        """Iterate over the groups in layout order."""
        return iter(self._groups)

    def index_of(self, parameter: Tensor) -> int | None:
        """Return the layout index of the group of ``parameter``; None if no group contains it."""
        return self._index.get(id(parameter))

    def adapters(self) -> list[tuple[int, int]]:
        """Return the layout indices of the factors A and B of each low-rank adapter.

        They are known by their names, or by their shapes and the module that they are in.
        """
        found = [
            (self.index_of(adapter.a), self.index_of(adapter.b))
            for adapter in adapters_of(self._model)
        ]
        groups = [(a, b) for a, b in found if a is not None and b is not None]
        return all_pairs(adapter_pairs([group.name for group in self._groups]), groups)

    def layout(
        self, residual_outputs: Sequence[str] = (), *, is_resumed: bool = False
    ) -> layout_pb2.Layout:
        """Return the layout message: names, shapes, kinds and initial weights of the groups.

        The advisor derives the roles. Frozen parameters are listed as well, because the advisor
        counts blocks by all names. For a sharded model this is a collective: all ranks call it.
        Initial weights are left out once an optimizer has made a step. A group names its optimizer
        if that is not of the class of the first one.

        Args:
            residual_outputs: Shell patterns of the names of all tensors whose output is added to a
                residual stream. Empty: what the forward passes of blocks show; where they do not,
                the advisor goes by names.
            is_resumed: Whether the training has made steps, also if no optimizer shows them.

        Raises:
            AttachError: A pattern matches no group.
        """
        flags = self._residual_outputs(residual_outputs)
        parameters = [group.parameter for group in self._groups]
        descriptions = describe(self._model, parameters)
        is_resumed = is_resumed or any(map(has_stepped, self._optimizers))
        initial = [None] * len(parameters) if is_resumed else rms_of(parameters)
        return layout_pb2.Layout(
            groups=[
                layout_pb2.Group(
                    name=group.name,
                    parameter_count=group.parameter.shape.numel(),
                    shape=description.shape,
                    fan_in=description.fan_in,
                    fan_out=description.fan_out,
                    kind=description.kind,
                    initial_rms=rms,
                    optimizer="" if group.optimizer == self._optimizer else group.optimizer,
                    residual_output=None
                    if description.kind in _ADAPTERS
                    else flags.get(group.name),
                )
                for group, description, rms in zip(self._groups, descriptions, initial, strict=True)
            ],
            frozen_names=self._frozen,
            frozen_parameter_counts=self._frozen.values(),
        )

    def _residual_outputs(self, patterns: Sequence[str]) -> dict[str, bool]:
        """Return by name whether a group writes into a residual stream; unknown ones are left out.

        Raises:
            AttachError: A pattern matches no group; or there is no list of patterns.
        """
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            raise AttachError(
                f"residual_outputs is {patterns!r}; it must be a list of patterns, such as "
                "['blocks.*.attn.proj.*']"
            )
        if not patterns:
            names = {id(group.parameter): group.name for group in self}
            return residual_outputs_of(self._model, names)
        of_stream = matching([group.name for group in self], patterns)
        return {group.name: group.name in of_stream for group in self}


def matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """Return the names that match any of some shell patterns.

    Args:
        names: The names.
        patterns: The patterns, such as ``blocks.*.mlp.2.*``; ``*`` stands for dots, too.

    Raises:
        AttachError: A pattern matches none of them.
    """
    found: set[str] = set()
    for pattern in patterns:
        of_pattern = [name for name in names if fnmatchcase(name, pattern)]
        if not of_pattern:
            raise AttachError(
                f"the pattern {pattern!r} in residual_outputs matches none of the {len(names)} "
                f"groups; names look like {', '.join(names[:3])}"
            )
        found.update(of_pattern)
    return found


def check_model(model: object) -> None:
    """Refuse a model that is not a module.

    Args:
        model: What a user passed as the model.

    Raises:
        AttachError: It is something else.
    """
    if not isinstance(model, nn.Module):
        raise AttachError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module "
            "that the training loop calls first, and its optimizer second"
        )


def _refuse_lazy(model: nn.Module) -> None:
    """Refuse a model with parameters that get their shapes in its first call.

    Raises:
        AttachError: There are such parameters.
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise AttachError(
            f"{len(lazy)} parameter(s) of the model have no shape yet, first {lazy[0]!r}, because "
            "they belong to lazy modules; call the model once on a batch, and attach then"
        )


def keeps_no_record(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether steps of an optimizer leave nothing in its state: SGD without momentum.

    Args:
        optimizer: An inner optimizer.
    """
    return isinstance(optimizer, torch.optim.SGD) and not any(
        group["momentum"] for group in optimizer.param_groups
    )


def has_stepped(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the state of an optimizer shows that it has made a step.

    Args:
        optimizer: An inner optimizer.
    """
    for state in getattr(optimizer, "state", {}).values():
        if isinstance(state, Mapping) and state:
            return float(state.get("step", 1)) > 0  # Adagrad has a state before its first step
    return False
