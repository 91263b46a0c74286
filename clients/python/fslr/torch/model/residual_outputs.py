r"""Which parameters write into the residual stream, from the forward pass of a model's blocks.

A block :math:`x \mapsto x + f(x)` runs once on an empty batch of a likely shape, as a copy without
values: nothing is computed, and the model does not change. From the output backwards, each sum has
one operand that leads to the block's input without any weight, which is the stream. The other is a
branch, and its last weights write into the stream: those of a linear layer, a convolution, an
affine normalization or a gain, behind nothing but functions that a factor passes through.

Blocks that do not run this way, or have branches that end differently, are left to the advisor,
which goes by names.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from fslr.torch.model.forward_traces import Op, TracedTensor, traced_output
from fslr.training.roles import roles_of

_EXPERTS = "expert"


class _Outcome(enum.Enum):
    """What the forward pass of a module shows."""

    RESIDUAL = "the output is a residual stream"
    SHORTCUT = "a sum whose two operands both have weights"
    PLAIN = "the output is no sum with the input"


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a module.

    Attributes:
        outcome: What its forward pass shows.
        written: Names of the parameters that write into its residual stream.
        is_complete: Whether there are branches, and all end in a way that is understood.
    """

    outcome: _Outcome = _Outcome.PLAIN
    written: frozenset[str] = frozenset()
    is_complete: bool = False


def residual_outputs_of(model: nn.Module, names: Mapping[int, str]) -> dict[str, bool]:
    """Return which parameters write into the residual stream, as far as forward passes show it.

    Args:
        model: The model.
        names: The names of its trainable parameters, by their ids.

    Returns:
        True or False by name; parameters whose blocks do not show it are left out.
    """
    roles = dict(zip(names.values(), roles_of([*names.values()]), strict=True))
    members: dict[str, list[str]] = {}
    for name, role in roles.items():
        if path := _block_of(name, role):
            members.setdefault(path, []).append(name)
    modules = {  # of a compiled module, the one inside
        ".".join(part for part in name.split(".") if part != "_orig_mod"): module
        for name, module in model.named_modules()
    }
    known: dict[str, _Found] = {}
    found: dict[str, bool] = {}
    open_names: dict[str, tuple[str, str]] = {}
    flags: defaultdict[tuple[str, str], set[bool]] = defaultdict(set)
    for path, own in members.items():
        shown_by, block = _block_result(path, modules, names, known)
        for name in own:
            key = _place(roles[name], shown_by), name.removeprefix(shown_by)
            if block.outcome is _Outcome.SHORTCUT:
                open_names[name] = key
            elif name in block.written or block.is_complete:
                found[name] = name in block.written
                flags[key].add(found[name])
    # A block that changes the width has weights on both sides of its sum; its siblings have not.
    alike = {name: flags[key] for name, key in open_names.items() if len(flags[key]) == 1}
    return {**found, **{name: True in own for name, own in alike.items()}}


def _place(role: str, path: str) -> str:
    """Return the path of a module with ``*`` in place of its indices, from a parameter's role."""
    return ".".join(role.split(".")[: path.count(".") + 1]) if path else ""


def _block_of(name: str, role: str) -> str:
    """Return the path of the block that a parameter is in, empty if it is in none."""
    segments = name.split(".")
    path = ""
    for i, (own, part) in enumerate(zip(segments[:-1], role.split("."), strict=False)):
        before = segments[i - 1] if i and own.isdigit() else own
        if own != part and _EXPERTS not in before:
            path = ".".join(segments[: i + 1])
    return path


def _block_result(
    path: str,
    modules: Mapping[str, nn.Module],
    names: Mapping[int, str],
    known: dict[str, _Found],
) -> tuple[str, _Found]:
    """Return the first module from a block outwards whose forward pass shows branches, and which.

    If there is none, the path is that of the model.
    """
    while True:
        if path in modules and path not in known:
            output = traced_output(modules[path], names)
            known[path] = _Found() if output is None else _along_stream(output)
        result = known.get(path, _Found())
        if result.outcome is not _Outcome.PLAIN or not path:
            return path, result
        path = path.rpartition(".")[0]


def _along_stream(node: TracedTensor) -> _Found:
    """Return what writes into the stream that a tensor is part of."""
    written: set[str] = set()
    is_complete, is_residual = True, False
    while not node.is_stream:
        if node.op is Op.SUM and len(node.parents) > 1:
            streams = [parent for parent in node.parents if _is_stream(parent)]
            if not streams:
                return _Found(_Outcome.SHORTCUT)
            branches = [_last_weights(p) for p in node.parents if p not in streams]
            is_complete &= None not in branches
            is_residual |= bool(branches)
            written.update(*filter(None, branches))
        elif node.op in {Op.SUM, Op.NORM, Op.THROUGH}:
            streams = [*node.parents]
        else:
            return _Found()
        if len(streams) != 1:
            return _Found()
        [node] = streams
    if not is_residual:
        return _Found()
    return _Found(_Outcome.RESIDUAL, frozenset(written), is_complete)


def _is_stream(node: TracedTensor) -> bool:
    """Return whether a tensor is an input to which only branches were added."""
    if node.is_stream:
        return True
    if node.op not in {Op.SUM, Op.NORM, Op.THROUGH}:
        return False
    return any(map(_is_stream, node.parents))


def _last_weights(node: TracedTensor) -> set[str] | None:
    """Return the names of the last weights of a branch; None: they are not known."""
    if node.op in {Op.LINEAR, Op.NORM} or (node.op is Op.PRODUCT and node.parameters):
        is_single = len(node.parents) == 1 and bool(node.parameters)
        return set(node.parameters) if is_single else None
    if node.op not in {Op.SUM, Op.THROUGH, Op.PRODUCT} or not node.parents:
        return None
    if node.op is Op.PRODUCT and len(node.parents) > 1:
        return None  # of two branches, such as a gate
    found = [_last_weights(parent) for parent in node.parents]
    if any(names is None for names in found):
        return None
    return {name for names in found for name in names or ()} | set(node.parameters)
