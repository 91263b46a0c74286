"""Real text that every Python installation has: the help topics and sources of the language."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

import torch
from torch import Tensor

_PACKAGES = ("asyncio", "email", "json", "logging", "unittest", "xml", "http", "concurrent")
_VALIDATION_EVERY = 10  # one document in ten is held out


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text as character indices, split into training and validation documents.

    Attributes:
        train: Training characters, shape [characters], int64.
        validation: Held-out characters, shape [characters], int64.
        vocabulary: The distinct characters, in the order of their indices.
    """

    train: Tensor
    validation: Tensor
    vocabulary: str

    def batch(
        self, split: Tensor, examples: int, context: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw inputs and next-character targets, each of shape [examples, context]."""
        starts = torch.randint(0, len(split) - context - 1, (examples,), generator=generator)
        windows = split[starts[:, None] + torch.arange(context + 1)]
        return windows[:, :-1], windows[:, 1:]


Documents = Literal["all", "topics", "sources"]


@cache
def load_corpus(documents: Documents = "all") -> Corpus:
    """Read ``pydoc_data.topics`` and ``*.py`` sources of the standard library (about 3 MB).

    Args:
        documents: Which of them to return; the vocabulary always comes from all of them.
    """
    library = Path(sysconfig.get_path("stdlib"))
    read = {"topics": [topics[name] for name in sorted(topics)], "sources": list[str]()}
    for package in _PACKAGES:
        read["sources"] += [
            path.read_text(encoding="utf-8", errors="ignore")
            for path in sorted((library / package).rglob("*.py"))
        ]
    # Replacing the few characters beyond ASCII keeps the vocabulary small.
    texts = {
        kind: ["".join(c if c.isascii() else "?" for c in text) for text in found]
        for kind, found in read.items()
    }
    texts["all"] = texts["topics"] + texts["sources"]
    vocabulary = "".join(sorted(set("".join(texts["all"]))))
    index = {character: i for i, character in enumerate(vocabulary)}

    def encode(kept: list[str]) -> Tensor:
        return torch.tensor([index[c] for text in kept for c in text], dtype=torch.int64)

    chosen = texts[documents]
    held_out = chosen[::_VALIDATION_EVERY]
    training = [d for i, d in enumerate(chosen) if i % _VALIDATION_EVERY]
    return Corpus(encode(training), encode(held_out), vocabulary)
