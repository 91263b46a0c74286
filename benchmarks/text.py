"""Real text that every Python installation carries: the language's own help topics and sources."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor

_PACKAGES = ("asyncio", "email", "json", "logging", "unittest", "xml", "http", "concurrent")
_VALIDATION_EVERY = 10  # one document of ten is held out


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text as character indices, cut into training and validation documents.

    Attributes:
        train: Training characters, shape [characters], int64.
        validation: Held-out characters, shape [characters], int64.
        vocabulary: The distinct characters; an index is a position in it.
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


def load_corpus() -> Corpus:
    """Read ``pydoc_data.topics`` and ``*.py`` sources of the standard library (about 3 MB)."""
    library = Path(sysconfig.get_path("stdlib"))
    documents = [topics[name] for name in sorted(topics)]
    for package in _PACKAGES:
        documents += [
            path.read_text(encoding="utf-8", errors="ignore")
            for path in sorted((library / package).rglob("*.py"))
        ]
    # Beyond ASCII lie a few characters of tests and names: one stand-in keeps the vocabulary small.
    documents = ["".join(c if c.isascii() else "?" for c in text) for text in documents]
    vocabulary = "".join(sorted(set("".join(documents))))
    index = {character: i for i, character in enumerate(vocabulary)}

    def encode(texts: list[str]) -> Tensor:
        return torch.tensor([index[c] for text in texts for c in text], dtype=torch.int64)

    held_out = documents[::_VALIDATION_EVERY]
    training = [d for i, d in enumerate(documents) if i % _VALIDATION_EVERY]
    return Corpus(encode(training), encode(held_out), vocabulary)
