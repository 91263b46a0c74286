"""What each parameter does in its model, as far as learning rates depend on it.

The model is not run: kinds follow from the classes of modules, from names and from the order of
registration. The first row that applies decides. "In a block" means that a number in the name is
followed by a further module, as in ``layers.3.mlp.weight``. Names are compared as whole parts
between dots.

=============  =================================================================================
kind           parameter
=============  =================================================================================
adapter A      in ``lora_A``, ``lora_a``, ``lora_embedding_A``, ``lora_down``; of the module
               ``a``, ``A`` or ``down`` of a class with LoRA in its name
adapter B      the same with ``b``, ``B`` and ``up``; both also by shape and use, as in
               :mod:`fslr.torch.model.adapters`
embedding      of ``nn.Embedding``, ``nn.EmbeddingBag`` or a class with Embedding in its name,
               also if it is tied to the readout; a raw table whose name says position,
               embedding, token, latent, queries or prompt
vector         of a norm; named ``bias`` or ``..._bias``; at most one dimension is above 1, and
               it is not the weight of a layer
router         in ``router``; in ``gate``, ``gating``, ``wg`` or ``shared_expert_gate`` beside
               experts
expert         in a module whose name ends in ``expert`` or ``experts`` and does not begin with
               ``shared``; of three dimensions, in a class with Expert or MoE in its name
input          in ``patch_embed...``; of a convolution of 1 or 3 channels without groups; the
               first matrix of a model without an embedding of tokens, if it is not in a block
convolution    of any other convolution
readout        of a linear layer that is the model's output embedding, or not in a block and
               called ``lm_head``, ``head``, ``classifier``, ``logits`` or the like; if the model
               has no output embedding, its last matrix, if that is of a linear layer, not in a
               block and no pooler
hidden         any other
unspecified    without a shape (not yet initialized), without entries, or with more than 8
               dimensions
=============  =================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from fslr.advisor.v1 import layout_pb2
from fslr.torch.model.adapters import adapters_of
from fslr.torch.model.owners import Owner, owners_of
from fslr.torch.model.shapes import Convolution, fans_of
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

_SHORT_A, _SHORT_B = frozenset({"a", "A", "down"}), frozenset({"b", "B", "up"})
_EXPERTS_CLASS = re.compile(r"Expert|MoE")
_GAINS = frozenset({"weight_g", "original0"})  # of weight norm, in its old and its new form
_LAYERS = (
    nn.Linear | nn.Bilinear | nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention | Convolution
)


def describe(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[Description]:
    """Return what is known of parameters before training; the model is not run.

    Args:
        model: The module inside all wrappers.
        parameters: Some of its parameters.
    """
    owners = owners_of(model)
    shapes = {id(p): tuple(p.shape) for p in model.parameters()}
    kinds = _Kinds(model, owners, shapes)
    descriptions = []
    for parameter in parameters:
        key = id(parameter)
        shape = shapes[key]
        if 0 in shape or len(shape) > MAX_DIMENSIONS:
            descriptions.append(Description())
            continue
        kind = kinds.kind_of(key, shape)
        descriptions.append(Description(shape, *fans_of(owners[key][0], shape, kind), kind))
    return descriptions


class _Kinds:
    """Finds the kinds of a model's parameters.

    Args:
        model: The module inside all wrappers.
        owners: The owners of each parameter by its id, frozen ones included.
        shapes: The shape of each parameter by its id, in the order of ``model.parameters()``.
    """

    def __init__(
        self,
        model: nn.Module,
        owners: Mapping[int, Sequence[Owner]],
        shapes: Mapping[int, tuple[int, ...]],
    ) -> None:
        self._owners = owners
        adapters = adapters_of(model)
        self._factors_a = {id(adapter.a) for adapter in adapters}
        self._factors_b = {id(adapter.b) for adapter in adapters}
        paths = [owner.path for found in owners.values() for owner in found]
        self._beside_experts = beside_experts(paths)
        self._outputs = _output_embeddings(model) | {
            key
            for key, found in owners.items()
            if any(map(_is_embedding, found)) and any(map(_is_linear, found))
        }
        matrices = [key for key, shape in shapes.items() if self._is_matrix(key, shape)]
        has_tokens = any(
            _is_embedding(owner) and not any(part.startswith(POSITIONS) for part in owner.path)
            for found in owners.values()
            for owner in found
        )
        self._first = None if has_tokens or not matrices else matrices[0]
        self._last = None if self._outputs or not matrices else matrices[-1]

    def kind_of(self, key: int, shape: tuple[int, ...]) -> Kind:
        """Return the kind of a parameter.

        Args:
            key: Its id.
            shape: Its shape, with entries.
        """
        owners = self._owners[key]
        rules: list[tuple[Kind, Callable[[Owner], bool]]] = [
            (
                layout_pb2.GROUP_KIND_ADAPTER_A,
                lambda o: key in self._factors_a or _is_adapter(o, ADAPTER_A, _SHORT_A),
            ),
            (
                layout_pb2.GROUP_KIND_ADAPTER_B,
                lambda o: key in self._factors_b or _is_adapter(o, ADAPTER_B, _SHORT_B),
            ),
            (layout_pb2.GROUP_KIND_EMBEDDING, lambda o: _is_any_table(o, shape)),
            (layout_pb2.GROUP_KIND_VECTOR, lambda o: _is_vector(o, shape)),
            (layout_pb2.GROUP_KIND_ROUTER, lambda o: is_router(o.path, self._beside_experts)),
            (layout_pb2.GROUP_KIND_EXPERT, lambda o: _is_expert(o, shape)),
            (layout_pb2.GROUP_KIND_INPUT, lambda o: self._is_input(o, key)),
            (layout_pb2.GROUP_KIND_CONVOLUTION, lambda o: isinstance(o.module, Convolution)),
            (layout_pb2.GROUP_KIND_READOUT, lambda o: self._is_readout(o, key)),
        ]
        for kind, applies in rules:
            if any(map(applies, owners)):
                return kind
        return layout_pb2.GROUP_KIND_HIDDEN

    def _is_matrix(self, key: int, shape: tuple[int, ...]) -> bool:
        """Return whether a parameter is the weight of a layer that is no table and no adapter."""
        if key in self._factors_a | self._factors_b:
            return False
        return not any(
            _is_any_table(owner, shape)
            or _is_vector(owner, shape)
            or _is_adapter(owner, ADAPTER_A | ADAPTER_B, _SHORT_A | _SHORT_B)
            for owner in self._owners[key]
        )

    def _is_input(self, owner: Owner, key: int) -> bool:
        if is_patch_embedding(owner.path) or _reads_images(owner.module):
            return True
        return key == self._first != self._last and not is_in_block(owner.path)

    def _is_readout(self, owner: Owner, key: int) -> bool:
        if not _is_linear(owner) or is_in_block(owner.path):
            return key in self._outputs
        is_named = bool(owner.path) and owner.path[-1] in READOUTS
        is_last = key == self._last and "pooler" not in owner.path
        return is_named or is_last or key in self._outputs


def _output_embeddings(model: nn.Module) -> frozenset[int]:
    """Return the ids of the parameters of what a model of Transformers calls output embeddings."""
    find = getattr(model, "get_output_embeddings", None)
    try:
        module = find() if callable(find) else None
    except Exception:  # noqa: BLE001 - code of the model, which may have no output embeddings
        return frozenset()
    if not isinstance(module, nn.Module):
        return frozenset()
    return frozenset(id(parameter) for parameter in module.parameters())


def _is_linear(owner: Owner) -> bool:
    return isinstance(owner.module, nn.Linear)


def _reads_images(module: nn.Module) -> bool:
    return (
        isinstance(module, Convolution)
        and module.groups == 1
        and module.in_channels in IMAGE_CHANNELS
    )


def _is_adapter(owner: Owner, names: frozenset[str], short_names: frozenset[str]) -> bool:
    if names.intersection((*owner.path, owner.name)):
        return True
    is_short = bool(owner.path) and owner.path[-1] in short_names
    return is_short and "lora" in type(owner.parent).__name__.lower()


def _is_embedding(owner: Owner) -> bool:
    if isinstance(owner.module, nn.Embedding | nn.EmbeddingBag):
        return True
    if isinstance(owner.module, _LAYERS) or owner.name != "weight":
        return False
    return any("Embedding" in name for name in owner.class_names)


def _is_any_table(owner: Owner, shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and (_is_embedding(owner) or _is_raw_table(owner, shape))


def _is_raw_table(owner: Owner, shape: tuple[int, ...]) -> bool:
    if is_vector(shape) or isinstance(owner.module, _LAYERS):
        return False
    return TABLE.search(owner.name) is not None


def _is_vector(owner: Owner, shape: tuple[int, ...]) -> bool:
    if any(map(NORM_CLASS.search, owner.class_names)):
        return True
    if owner.name == "bias" or owner.name.endswith("_bias"):
        return True
    if len(shape) > 1 and isinstance(owner.module, _LAYERS) and owner.name not in _GAINS:
        # The weight of a layer with a single input or output is a matrix.
        return is_vector(shape) and not owner.name.startswith(("weight", "original"))
    return is_vector(shape)


def _is_expert(owner: Owner, shape: tuple[int, ...]) -> bool:
    if any(map(EXPERTS.match, owner.path)):
        return True
    return len(shape) == 3 and any(map(_EXPERTS_CLASS.search, owner.class_names))
