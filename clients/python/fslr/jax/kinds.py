"""What each parameter does in its model, as far as learning rates depend on it.

The model is not run: kinds follow from names, from classes of modules where a model consists of
them (Equinox, Flax nnx), and from shapes. The first row that applies decides. "In a block" means
that a number in the name is followed by a further module, as in ``layers.3.mlp.kernel`` and
``layers_3.mlp.kernel``. Words of names are those of :mod:`fslr.training.parameter_words`.

=============  =================================================================================
kind           parameter
=============  =================================================================================
adapter A, B   in ``lora_A``, ``lora_a`` and the like; in ``lora_B``, ``lora_b``; both also by
               shape and use, as in :mod:`fslr.jax.adapters`
embedding      ``embedding`` of Flax; of a class or a module with Embed in its name; a raw table
               whose name says position, embedding, token or the like
vector         of a norm; ``bias``, ``scale`` or ``..._bias``; at most one dimension is above 1, and
               it is not the weight of a layer
router         in ``router``; in ``gate`` and the like beside experts
expert         in a module whose name ends in ``expert`` or ``experts``
input          in ``patch_embed...``; a convolution of 1 or 3 channels; the first matrix of a model
               without an embedding of tokens, if it is not in a block
convolution    the ``kernel`` of Flax or the ``weight`` of Equinox with 3 to 5 dimensions; the ``w``
               of a module of Haiku with conv in its name
readout        not in a block and called ``lm_head``, ``head`` or the like; else the last matrix, if
               it is not in a block
unspecified    a matrix that is not in a block, if its name does not say what it is, and the order
               of a dictionary is lost
hidden         any other
=============  =================================================================================

A matrix with a single row or column is the weight of a layer if it is called ``kernel``, ``weight``
or ``w``, or if there is a bias beside it, as in a list of pairs of weights and biases.

Dictionaries that JAX has rebuilt are sorted. Then the first and the last matrix are known only if
modules are numbered, as ``Dense_0`` and ``Dense_1``, or elements of a list.

==============================  ===========================  ===================================
parameter                       shape                        fan-in, fan-out
==============================  ===========================  ===================================
kernel, matrix of a pytree      (in, out)                    in, out
weight of Equinox               (out, in)                    in, out
convolution of Flax             (kernel, in / g, out)        in k / g, out k
convolution of Equinox          (out, in / g, kernel)        in k / g, out k
query, key, value of Flax       (in, heads, length)          in, heads x length
out of attention of Flax        (heads, length, out)         heads x length, out
experts of a block              (experts, in, out)           in, out
table                           (rows, length)               rows, length
vector                          (length)                     1, length
==============================  ===========================  ===================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fslr.advisor.v1 import layout_pb2
from fslr.training.parameter_words import (
    ADAPTER_A,
    ADAPTER_B,
    EXPERTS,
    IMAGE_CHANNELS,
    MAX_DIMENSIONS,
    NORM_CLASS,
    POSITIONS,
    READOUTS,
    TABLE,
    Description,
    Kind,
    beside_experts,
    is_in_block,
    is_patch_embedding,
    is_router,
    is_vector,
)

_NUMBERED = re.compile(r"([A-Za-z][A-Za-z_]*?)_([0-9]+)")  # blocks_3, Dense_0
_ATTENTION = frozenset({"query", "key", "value"})
_VECTORS = frozenset({"bias", "scale"})
WEIGHTS = frozenset({"kernel", "weight", "w", "W"})
"""Names of the weight of a layer."""
_EMBEDDING_CLASS = re.compile(r"^Embed")
_NORM_NAME = re.compile(r"(^|_)(layer|batch|rms|group|instance)?_?norm", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of the parameters.

    Attributes:
        path: The parts of its name.
        shape: Its shape, of one layer if it is stacked.
        classes: Names of the classes of the module that it belongs to; empty: not known.
        layer: Its layer, if it is one of a stacked leaf; None otherwise.
        has_bias: Whether a vector beside it has an entry for each of its outputs.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    layer: int | None = None
    has_bias: bool = False

    @property
    def module(self) -> tuple[str, ...]:
        """The path of its module, with numbers as parts of their own."""
        pieces: list[str] = []
        for part in self.path[:-1]:
            numbered = _NUMBERED.fullmatch(part)
            pieces.extend(numbered.groups() if numbered else (part,))
        return tuple(pieces)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.path[-1] if self.path else ""

    @property
    def is_equinox_weight(self) -> bool:
        """Whether outputs come first in its shape."""
        return self.name == "weight" and bool(self.classes)


def describe(
    leaves: Sequence[Leaf], *, is_ordered: bool, adapters: Sequence[tuple[int, int]] = ()
) -> list[Description]:
    """Return what is known of parameters before training; the model is not run.

    Args:
        leaves: The parameters.
        is_ordered: Whether their order is that of the model.
        adapters: The indices of the factors A and B of adapters.
    """
    leaves = _with_biases(leaves)
    known = {a: layout_pb2.GROUP_KIND_ADAPTER_A for a, _ in adapters}
    known |= {b: layout_pb2.GROUP_KIND_ADAPTER_B for _, b in adapters}
    others = [leaf for index, leaf in enumerate(leaves) if index not in known]
    kinds = _Kinds(others, is_ordered=is_ordered)
    found = []
    for index, leaf in enumerate(leaves):
        if 0 in leaf.shape or len(leaf.shape) > MAX_DIMENSIONS:
            found.append(Description())
            continue
        kind = known[index] if index in known else kinds.kind_of(leaf)
        found.append(Description(leaf.shape, *_fans_of(leaf, kind), kind))
    return found


def _with_biases(leaves: Sequence[Leaf]) -> list[Leaf]:
    """Return leaves that know whether there is a bias beside them, and nothing else."""
    beside: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    for leaf in leaves:
        beside.setdefault(leaf.path[:-1], set()).add(leaf.shape)
    return [
        replace(leaf, has_bias=beside[leaf.path[:-1]] == {leaf.shape, leaf.shape[1:]})
        if len(leaf.shape) == 2
        else leaf
        for leaf in leaves
    ]


class _Kinds:
    """Finds the kinds of the leaves of a model.

    Args:
        leaves: All of them.
        is_ordered: Whether their order is that of the model.
    """

    def __init__(self, leaves: Sequence[Leaf], *, is_ordered: bool) -> None:
        self._beside = beside_experts(leaf.module for leaf in leaves)
        matrices = [leaf for leaf in leaves if _is_matrix(leaf)]
        outside = [leaf for leaf in matrices if not _is_in_block(leaf)]
        numbered = _by_number(outside)
        self._is_known = is_ordered or numbered is not None
        ordered = matrices if is_ordered else numbered or []
        has_tokens = any(
            _is_table(leaf) and not any(part.startswith(POSITIONS) for part in leaf.path)
            for leaf in leaves
        )
        has_readout = any(_is_named_readout(leaf) for leaf in matrices)
        self._first = ordered[0] if ordered and not has_tokens else None
        self._last = ordered[-1] if ordered and not has_readout else None
        self._may_be_first, self._may_be_last = not has_tokens, not has_readout

    def kind_of(self, leaf: Leaf) -> Kind:
        """Return the kind of a leaf."""
        rules: list[tuple[Kind, Callable[[Leaf], bool]]] = [
            (layout_pb2.GROUP_KIND_ADAPTER_A, lambda o: bool(ADAPTER_A.intersection(o.path))),
            (layout_pb2.GROUP_KIND_ADAPTER_B, lambda o: bool(ADAPTER_B.intersection(o.path))),
            (layout_pb2.GROUP_KIND_EMBEDDING, _is_table),
            (layout_pb2.GROUP_KIND_VECTOR, _is_vector),
            (layout_pb2.GROUP_KIND_ROUTER, lambda o: is_router(o.module, self._beside)),
            (layout_pb2.GROUP_KIND_EXPERT, lambda o: any(map(EXPERTS.match, o.module))),
            (layout_pb2.GROUP_KIND_INPUT, self._is_input),
            (layout_pb2.GROUP_KIND_CONVOLUTION, _is_convolution),
            (layout_pb2.GROUP_KIND_READOUT, self._is_readout),
            (layout_pb2.GROUP_KIND_UNSPECIFIED, self._is_uncertain),
        ]
        for kind, applies in rules:
            if applies(leaf):
                return kind
        return layout_pb2.GROUP_KIND_HIDDEN

    def _is_input(self, leaf: Leaf) -> bool:
        if is_patch_embedding(leaf.module):
            return True
        if _is_convolution(leaf) and _channels(leaf) in IMAGE_CHANNELS:
            return True
        return leaf is self._first is not self._last and not _is_in_block(leaf)

    def _is_readout(self, leaf: Leaf) -> bool:
        if _is_named_readout(leaf):
            return True
        return leaf is self._last and not _is_in_block(leaf)

    def _is_uncertain(self, leaf: Leaf) -> bool:
        could_be = self._may_be_first or self._may_be_last
        return not self._is_known and could_be and not _is_in_block(leaf)


def _by_number(leaves: Sequence[Leaf]) -> list[Leaf] | None:
    """Return leaves by the numbers of their modules, if all modules have the same name."""
    numbered = [_numbered(leaf.path) for leaf in leaves]
    found = [number for number in numbered if number is not None]
    if len(found) < len(leaves) or len({name for name, _ in found}) != 1:
        return None
    order = sorted(range(len(leaves)), key=lambda i: found[i][1])
    return [leaves[i] for i in order]


def _numbered(path: tuple[str, ...]) -> tuple[str, int] | None:
    """Return name and number of a module such as ``Dense_0``, ``layers.0`` or ``0``, or None."""
    top = path[1:] if path[:1] == ("params",) else path
    if top[1:] and (parts := _NUMBERED.fullmatch(top[0])):
        return parts[1], int(parts[2])
    for place in range(min(2, len(top) - 1)):
        if top[place].isdigit():
            return "".join(top[:place]), int(top[place])
    return None


def _is_in_block(leaf: Leaf) -> bool:
    return leaf.layer is not None or is_in_block(leaf.module)


def _is_matrix(leaf: Leaf) -> bool:
    """Return whether a leaf is the weight of a layer that is no table and no adapter."""
    is_adapter = (ADAPTER_A | ADAPTER_B).intersection(leaf.path)
    return not (_is_table(leaf) or _is_vector(leaf) or is_adapter)


def _is_named_readout(leaf: Leaf) -> bool:
    return _is_matrix(leaf) and not _is_in_block(leaf) and bool(READOUTS.intersection(leaf.module))


def _is_table(leaf: Leaf) -> bool:
    if len(leaf.shape) < 2:
        return False
    if leaf.name == "embedding" or any(map(_EMBEDDING_CLASS.search, leaf.classes)):
        return True
    if is_vector(leaf.shape):
        return False
    in_module = leaf.name == "weight" and not leaf.classes and leaf.path[1:]
    return TABLE.search(leaf.path[-2] if in_module else leaf.name) is not None


def is_of_norm(leaf: Leaf) -> bool:
    """Return whether a leaf belongs to a norm, as its module's classes or name say."""
    return any(map(NORM_CLASS.search, leaf.classes)) or any(map(_NORM_NAME.search, leaf.module))


def _is_vector(leaf: Leaf) -> bool:
    if is_of_norm(leaf) or leaf.name in _VECTORS or leaf.name.endswith("_bias"):
        return True
    if len(leaf.shape) > 1 and (leaf.name in WEIGHTS or leaf.has_bias):
        return False  # the weight of a layer with a single input or output is a matrix
    return is_vector(leaf.shape)


def _is_convolution(leaf: Leaf) -> bool:
    if not 3 <= len(leaf.shape) <= 5:
        return False
    if leaf.name == "w":
        return bool(leaf.module) and "conv" in "_".join(leaf.module).lower()
    return leaf.name in {"kernel", "weight"} and not _is_attention(leaf)


def _is_attention(leaf: Leaf) -> bool:
    """Return whether a leaf is a projection of Flax's attention, which has an axis for heads."""
    if leaf.name != "kernel" or len(leaf.shape) != 3 or not leaf.module:
        return False
    within = any("attention" in part.lower() or part == "attn" for part in leaf.module[:-1])
    return leaf.module[-1] in _ATTENTION or (leaf.module[-1] == "out" and within)


def _channels(leaf: Leaf) -> int:
    return leaf.shape[1] if leaf.is_equinox_weight else leaf.shape[-2]


def _fans_of(leaf: Leaf, kind: Kind) -> tuple[int, int]:
    """Return fan-in and fan-out of a leaf; 0 and 0 if they are unknown."""
    shape = leaf.shape
    if kind == layout_pb2.GROUP_KIND_VECTOR:
        return 1, shape[-1] if leaf.name == "bias" and shape else math.prod(shape)
    if kind == layout_pb2.GROUP_KIND_EMBEDDING:
        return math.prod(shape[:-1]), shape[-1]
    if _is_attention(leaf):
        split = 2 if leaf.module[-1] == "out" else 1
        return math.prod(shape[:split]), math.prod(shape[split:])
    if _is_convolution(leaf) and kind != layout_pb2.GROUP_KIND_EXPERT:
        if leaf.is_equinox_weight:
            out, inputs, *kernel = shape
        else:
            *kernel, inputs, out = shape
        return inputs * math.prod(kernel), out * math.prod(kernel)
    if len(shape) == 2 or (len(shape) == 3 and kind == layout_pb2.GROUP_KIND_EXPERT):
        *_, first, second = shape
        return (second, first) if leaf.is_equinox_weight else (first, second)
    return 0, 0
