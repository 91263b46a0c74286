"""Real text that every Python installation has: the help topics and sources of the language.

It is read as characters, or as the tokens of a byte-pair encoding that is trained on it.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
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
    """Text as indices of characters or tokens, split into training and validation documents.

    Attributes:
        train: Training text, shape [characters] or [tokens], int64.
        validation: Held-out text, shape [characters] or [tokens], int64.
        vocabulary: The distinct characters or tokens, in the order of their indices.
    """

    train: Tensor
    validation: Tensor
    vocabulary: Sequence[str]

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
    texts = _texts()
    vocabulary = "".join(sorted(set("".join(texts["all"]))))
    index = {character: i for i, character in enumerate(vocabulary)}

    def encode(kept: list[str]) -> Tensor:
        return torch.tensor([index[c] for text in kept for c in text], dtype=torch.int64)

    training, held_out = _split(texts[documents])
    return Corpus(encode(training), encode(held_out), vocabulary)


@cache
def load_tokens(vocabulary: int) -> Corpus:
    """Read all of the text as tokens of a byte-pair encoding, trained on its training documents.

    Args:
        vocabulary: Number of tokens, at least 256, as each byte is one.

    Raises:
        ValueError: There are fewer tokens than bytes.
    """
    if vocabulary < 256:
        raise ValueError(
            f"a vocabulary of {vocabulary} has no token for each byte; use 256 or more"
        )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    training, held_out = _split(_texts()["all"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training, trainer)

    def encode(kept: list[str]) -> Tensor:
        found = (encoded.ids for encoded in tokenizer.encode_batch(kept))
        return torch.tensor([index for ids in found for index in ids], dtype=torch.int64)

    indices = tokenizer.get_vocab()
    words = tuple(sorted(indices, key=lambda word: indices[word]))
    return Corpus(encode(training), encode(held_out), words)


@cache
def _texts() -> dict[Documents, list[str]]:
    """Return the documents by where they come from."""
    library = Path(sysconfig.get_path("stdlib"))
    prose = [topics[name] for name in sorted(topics)]
    sources = [
        path.read_text(encoding="utf-8", errors="ignore")
        for package in _PACKAGES
        for path in sorted((library / package).rglob("*.py"))
    ]
    # Replacing the few characters beyond ASCII keeps the vocabulary small.
    ascii_prose, ascii_sources = (
        ["".join(c if c.isascii() else "?" for c in text) for text in found]
        for found in (prose, sources)
    )
    return {"topics": ascii_prose, "sources": ascii_sources, "all": ascii_prose + ascii_sources}


def _split(documents: list[str]) -> tuple[list[str], list[str]]:
    """Return the documents for training and for validation."""
    training = [d for i, d in enumerate(documents) if i % _VALIDATION_EVERY]
    return training, documents[::_VALIDATION_EVERY]
