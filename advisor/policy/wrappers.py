"""Prefixes that wrappers of a model add to its parameters' names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_IN_FRONT = ("module.", "base_model.model.")
_IN_FRONT_PATTERN = re.compile(rf"(?:{'|'.join(map(re.escape, _IN_FRONT))})+")
_ANYWHERE_PATTERN = re.compile(rf"(?:^|(?<=[./]))(?:{'|'.join(_ANYWHERE)})[./]")


def strip_wrappers(name: str) -> str:
    """Return a name without what torch.compile, FSDP, checkpointing, DDP and PEFT add to it.

    ``_orig_mod.``, ``_fsdp_wrapped_module.`` and ``_checkpoint_wrapped_module.`` are removed
    anywhere, ``module.`` and ``base_model.model.`` only at the start of the name.
    """
    stripped = _ANYWHERE_PATTERN.sub("", name)
    if front := _IN_FRONT_PATTERN.match(stripped):
        stripped = stripped[front.end() :]
    return stripped or name


def clean_names(names: Sequence[str]) -> list[str]:
    """Return the names without wrappers; those that would become equal are left unchanged."""
    text = "\n".join(names)
    if not any(wrapper in text for wrapper in (*_ANYWHERE, *_IN_FRONT)):
        return [*names]
    stripped = [strip_wrappers(name) for name in names]
    counts = Counter(stripped)
    return [
        short if counts[short] == 1 else name for name, short in zip(names, stripped, strict=True)
    ]
