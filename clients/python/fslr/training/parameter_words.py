"""What names and shapes say about the parameters of a model, in any framework.

Names are compared as whole parts between dots.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fslr.advisor.v1 import layout_pb2

Kind: TypeAlias = layout_pb2.GroupKind.ValueType

MAX_DIMENSIONS = 8  # of a shape in the contract

ADAPTERS = {
    "lora_A": "lora_B",
    "lora_a": "lora_b",
    "lora_embedding_A": "lora_embedding_B",
    "lora_down": "lora_up",
}
"""Names of the factor A of adapters, and those of the factor B beside it."""
ADAPTER_A, ADAPTER_B = frozenset(ADAPTERS), frozenset(ADAPTERS.values())
GATES = frozenset({"gate", "gating", "wg", "shared_expert_gate"})
"""Names of routers, if they are beside experts."""
READOUTS = frozenset({
    *("lm_head", "head", "heads", "output", "output_layer", "output_projection", "out_head"),
    *("classifier", "logits", "to_logits", "score", "embed_out", "unembed", "readout"),
    *("qa_outputs", "cls_head", "visual_projection", "text_projection"),
})
TABLE = re.compile(
    r"(^|_)(pos|position|positions|positional|emb|embs|embed|embeds|embedding|embeddings"
    r"|token|tokens|latent|latents|queries|prompt|prompts)(_|$)|^rel_pos|^wpe$|^wte$"
)
"""Finds names of tables that are indexed by tokens or positions."""
EXPERTS = re.compile(r"^(?!shared).*experts?$")
"""Matches names of modules that hold experts."""
NORM_CLASS = re.compile(r"Norm(?!al)")
"""Finds names of classes of norms."""
POSITIONS = ("pos", "wpe")
"""Beginnings of names of tables of positions."""
IMAGE_CHANNELS = frozenset({1, 3})


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a parameter before training.

    Attributes:
        shape: Its shape; empty: unknown, or a scalar.
        fan_in: Number of inputs that one output sums over; 0: unknown.
        fan_out: Number of outputs that one input takes part in; 0: unknown.
        kind: What it does in its model.
    """

    shape: tuple[int, ...] = ()
    fan_in: int = 0
    fan_out: int = 0
    kind: Kind = layout_pb2.GROUP_KIND_UNSPECIFIED


def is_vector(shape: tuple[int, ...]) -> bool:
    """Return whether at most one dimension of a shape is above 1."""
    return sum(size > 1 for size in shape) <= 1


def is_in_block(path: Sequence[str]) -> bool:
    """Return whether a number in a module's path is followed by a further module."""
    return any(part.isdigit() for part in path[:-1])


def is_patch_embedding(path: Iterable[str]) -> bool:
    """Return whether a module embeds patches of images."""
    return any(part.startswith(("patch_embed", "patchembed")) for part in path)


def beside_experts(paths: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the paths of modules that hold experts, from the paths of all modules."""
    return {path[:i] for path in paths for i, part in enumerate(path) if EXPERTS.match(part)}


def is_router(path: tuple[str, ...], beside: Collection[tuple[str, ...]]) -> bool:
    """Return whether a module is a router.

    Args:
        path: Its path.
        beside: Paths of the modules that hold experts.
    """
    if "router" in path:
        return True
    return any(part in GATES and path[:i] in beside for i, part in enumerate(path))
