"""Families of optimizers: those whose updates have the same shape."""

from __future__ import annotations

import re

# Stems of optimizer names in PyTorch, optax, bitsandbytes, DeepSpeed and Hugging Face's arguments,
# such as adamw_torch_fused. The longest one that a name contains decides. Short ones must be whole
# words, and words that names of several optimizers contain come last.
_STEMS = {
    **dict.fromkeys(("adam", "adamw", "nadam", "radam", "adamax"), "Adam"),
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
    **dict.fromkeys(("signsgd", "signum"), "sign descent"),
    **dict.fromkeys(("shampoo", "sophia"), "second order"),
    "adafactor": "factored",
}
_WORDS = {
    "lamb": "Adam",
    "lion": "sign descent",
    "tiger": "sign descent",
    "muon": "orthogonalized",
    "soap": "second order",
    "kfac": "second order",
    "came": "factored",
}
_LAST = {"momentum": "SGD", "nesterov": "SGD"}
FAMILIES = tuple(sorted({*_STEMS.values(), *_WORDS.values(), *_LAST.values()}))
"""The known families."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def optimizer_family(optimizer: str) -> str:
    """Return the family of an optimizer's name; an unknown name is its own family."""
    plain = plain_name(optimizer)
    words = [word.lower() for word in _WORD.findall(optimizer)]
    if "muon" in words:  # MuonWithAuxAdam too
        return _WORDS["muon"]
    for stem in sorted(_STEMS, key=len, reverse=True):
        if stem in plain:
            return _STEMS[stem]
    for known in (_WORDS, _LAST):
        for word in words:
            if word in known:
                return known[word]
    return plain


def plain_name(text: str) -> str:
    """Return a name in lower case, without punctuation and spaces."""
    return "".join(c for c in text.lower() if c.isalnum())
