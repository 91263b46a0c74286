"""The settings of a transfer case: the kind of model and its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.text import Documents

ModelName = Literal[
    "char_gpt_pre",
    "char_gpt_post",
    "char_gpt_post_mod",
    "lora_gpt",
    "moe_gpt",
    "bpe_gpt",
    "res_mlp",
    "conv_net",
]
MODELS: tuple[ModelName, ...] = get_args(ModelName)


@dataclass(frozen=True, slots=True)
class Setting:
    """The sizes of a model and of its batches.

    Attributes:
        model: The kind of model.
        width: Width of the model.
        depth: Number of residual blocks; the convolutional network has none.
        init_scale: Factor on the initial weights of the blocks' feed-forward layers.
        rank: Rank of the adapters of ``lora_gpt``.
        experts: Experts in each block of ``moe_gpt``.
        vocabulary: Tokens of the byte-pair encoding of ``bpe_gpt``; other models read characters.
        context: Characters or tokens per sequence, for text models.
        batch_size: Examples per step.
        documents: The text, for text models.
    """

    model: ModelName
    width: int
    depth: int = 2
    init_scale: float = 1.0
    rank: int = 0
    experts: int = 0
    vocabulary: int = 0
    context: int = 32
    batch_size: int = 16
    documents: Documents = "all"

    @property
    def reads_text(self) -> bool:
        """Whether the examples are sequences of characters or tokens."""
        return self.model not in {"res_mlp", "conv_net"}

    @property
    def text(self) -> str:
        """The setting as readable text."""
        words = [f"width {self.width}"]
        if self.model != "conv_net":
            words.append(f"{self.depth} blocks")
        if self.rank:
            words.append(f"rank {self.rank}")
        if self.experts:
            words.append(f"{self.experts} experts")
        if self.init_scale != 1.0:
            words.append(f"initial weights x{self.init_scale:g}")
        words.append(f"batch {self.batch_size}")
        if self.reads_text:
            words.append(f"{self.context} {'tokens' if self.vocabulary else 'characters'}")
        return ", ".join(words)
