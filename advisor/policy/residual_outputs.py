r"""Which groups write into the residual stream.

The output of such a group's module is added to the stream: the output projection of an attention,
the last layer of an MLP. Clients that see the model's graph say so in the layout
(``Group.residual_output``). Otherwise the name decides. A group is a residual output if it is in a
block and its module

* has a name that only such layers have (``out_proj``, ``o_proj``, ``c_proj``, ``down_proj``,
  ``fc2``, ``linear2``, ``wo``, ``w2`` and the like), or
* is called ``dense``, ``out``, ``o``, ``down`` or ``proj`` directly inside an attention or an MLP,
  or is the ``dense`` of BERT's ``output`` modules, or
* is the last numbered layer with a matrix in an MLP or an expert (``mlp.2`` beside ``mlp.0``,
  ``Dense_1`` beside ``Dense_0``).

Names do not show whether a block has a residual connection at all. In convolutional blocks all
kinds of layers have these names, so by name neither convolutions nor their biases are residual
outputs. Adapters are not, either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from advisor.policy.groups import Group, GroupKind
from advisor.policy.layout import Layout
from advisor.policy.wrappers import clean_names

_Path: TypeAlias = tuple[str, ...]

_SEPARATOR = re.compile(r"[./]")
_NAMES = frozenset({
    *("out_proj", "o_proj", "c_proj", "down_proj", "output_proj", "proj_out", "linear_proj"),
    *("fc2", "fc_2", "fc_out", "lin2", "linear2", "linear_2", "linear_fc2", "pwconv2"),
    *("wo", "w_o", "w2", "w_2", "w_down", "out_lin", "to_out", "dense_4h_to_h"),
})
_NAMES_IN_PARTS = frozenset({"dense", "out", "o", "down", "proj"})
_NAMES_IN_BLOCKS = frozenset({"out", "down", "proj"})
_TENSORS = frozenset({"weight", "bias", "kernel", "scale", "embedding"})
_MLP = re.compile(r"mlp|ffn|feed_?forward|dense_?relu_?dense|^ff$", re.IGNORECASE)
_PART = re.compile(rf"attn|attention|mixer|experts?$|{_MLP.pattern}", re.IGNORECASE)
_EXPERTS = re.compile(r"experts?$", re.IGNORECASE)
_SEQUENTIAL = frozenset({"net", "layers", "linears"})
_NUMBERED = re.compile(r"(?:(?:dense|linear|layers?|fc|lin)_?)?([0-9]+)", re.IGNORECASE)
_BY_NAME = frozenset({GroupKind.HIDDEN, GroupKind.EXPERT, GroupKind.VECTOR, GroupKind.UNKNOWN})


def residual_outputs(layout: Layout) -> tuple[bool, ...]:
    """Return whether each group writes into the residual stream.

    Args:
        layout: The layout. What its groups state counts, and names decide for the others.
    """
    names = clean_names([group.name for group in layout.groups])
    paths = [tuple(_SEPARATOR.split(name)) for name in names]
    convolutions = {
        path[:-1]
        for group, path in zip(layout.groups, paths, strict=True)
        if group.kind is GroupKind.CONVOLUTION
    }
    layers = _numbered_layers(layout.groups, paths)
    found = []
    for group, path in zip(layout.groups, paths, strict=True):
        if group.residual_output is not None:
            found.append(group.residual_output)
        else:
            by_name = group.kind in _BY_NAME and path[:-1] not in convolutions
            found.append(by_name and is_in_block(group) and _has_the_name(path, layers))
    return tuple(found)


def is_in_block(group: Group) -> bool:
    """Return whether a group is in one of a row of blocks, as its role says."""
    return "*" in group.role or group.depth_count > 1


def _has_the_name(path: _Path, layers: Mapping[_Path, set[int]]) -> bool:
    """Return whether a name is that of a residual output.

    Args:
        path: The parts of the name.
        layers: What :func:`_numbered_layers` returned for the model.
    """
    module = path if path[-1] not in _TENSORS else path[:-1]
    if module and module[-1].isdigit() and module[-2:-1] == ("to_out",):
        module = module[:-1]  # a layer and its dropout
    parent, own = ("", "", *module)[-2:]
    if own in _NAMES:
        return True
    if own in _NAMES_IN_PARTS and (_PART.search(parent) or (own == "dense" and parent == "output")):
        return True
    if own in _NAMES_IN_BLOCKS and parent.isdigit() and module[:-2] not in layers:
        return True
    numbers = layers.get(module[:-1], set())
    number = _NUMBERED.fullmatch(own)
    return number is not None and len(numbers) > 1 and int(number[1]) == max(numbers)


def _numbered_layers(groups: Sequence[Group], paths: Sequence[_Path]) -> dict[_Path, set[int]]:
    """Return the numbers of the layers with a matrix in each MLP that numbers its layers."""
    found: dict[_Path, set[int]] = {}
    for group, path in zip(groups, paths, strict=True):
        if group.kind is GroupKind.VECTOR or path[-1] == "bias":
            continue
        for i, part in enumerate(path[1:-1], start=1):
            number = _NUMBERED.fullmatch(part)
            if number is not None and _is_mlp(path[:i]):
                found.setdefault(path[:i], set()).add(int(number[1]))
    return found


def _is_mlp(path: _Path) -> bool:
    """Return whether a module is an MLP or an expert, or the sequence of layers in one."""
    own, parent = path[-1], path[-2] if path[1:] else ""
    if own.isdigit():
        return _EXPERTS.search(parent) is not None
    return _MLP.search(parent if own in _SEQUENTIAL and parent else own) is not None
