"""What is read off a parameter's name: wrappers, block indices, and other frameworks' spellings.

A **role** is a name with its block indices taken out, ``*`` in their place. Indices are found by
themselves: the first number of a name counts as one (``blocks.3.mlp.0.weight`` has the role
``blocks.*.mlp.0.weight``), and so does a later number whose container says that it holds blocks
(``layers.2.experts.5.w`` has two: layer and expert; so has ``layer1.0.conv1.weight``: stage and
block). Numbers that end a word count where the word says block, layer, stage or expert, or where
Flax numbered a module at the top (``Dense_0/kernel``). Where that guess is wrong, **role
templates** say it: a template is the beginning of a name with ``*`` for each index, such as
``encoder.s*.u*``; the first that fits decides, and no other number of the name is an index.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.policy.errors import InvalidValueError, shown

MAX_TEMPLATES = 256
MAX_PATTERN_CHARACTERS = 512

_SEPARATORS = re.compile(r"([./])")
# Containers that hold repeated blocks, in the spelling of torchvision, Hugging Face, diffusers,
# fairseq, Flax and Megatron.
_BLOCK_WORDS = frozenset({
    *("block", "blocks", "cell", "cells", "h", "layer", "layers", "level", "levels"),
    *("expert", "experts", "stage", "stages", "unit", "units"),
    *("resnet", "resnets", "resblock", "resblocks", "attentions", "transformers"),
})
_NUMBERED_WORD = re.compile(r"([A-Za-z][A-Za-z_]*?)_?([0-9]+)")
_NUMBERED_MODULE = re.compile(r"[A-Z][A-Za-z]*_[0-9]+")
_NUMBER = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[A-Za-z]+")

# Wrappers put these in front of, or between, the names of the wrapped model.
_WRAPPERS_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS_IN_FRONT = ("module.", "base_model.model.")
_ANYWHERE = re.compile(rf"(?:^|(?<=[./]))(?:{'|'.join(_WRAPPERS_ANYWHERE)})[./]")


def without_wrappers(name: str) -> str:
    """Return a name without what torch.compile, FSDP, checkpointing, DDP and PEFT put into it.

    ``_orig_mod.``, ``_fsdp_wrapped_module.`` and ``_checkpoint_wrapped_module.`` go wherever they
    stand, ``module.`` and ``base_model.model.`` where the name begins with them.
    """
    stripped = _ANYWHERE.sub("", name)
    while prefix := next((p for p in _WRAPPERS_IN_FRONT if stripped.startswith(p)), ""):
        stripped = stripped.removeprefix(prefix)
    return stripped or name


def clean_names(names: Sequence[str]) -> list[str]:
    """Return the names without wrappers; those that would become equal are left as they are."""
    stripped = [without_wrappers(name) for name in names]
    counts = Counter(stripped)
    return [
        short if counts[short] == 1 else name for name, short in zip(names, stripped, strict=True)
    ]


def split_role(name: str, templates: Sequence[str] = ()) -> tuple[str, tuple[int, ...]]:
    """Return the role of a name and its block indices, outermost first; none: ``(name, ())``.

    Args:
        name: The name.
        templates: Role templates, tried in order before the indices are looked for.
    """
    for template in templates:
        fitting = _template_pattern(template).match(name)
        if fitting:
            return _starred(name, [fitting.span(i + 1) for i in range(len(fitting.groups()))])
    spans: list[tuple[int, int]] = []
    position, container = 0, ""
    for part in _SEPARATORS.split(name):
        if span := _index_span(part, container, first=not spans):
            spans.append((position + span[0], position + span[1]))
        if part not in {".", "/"}:
            container = part
        position += len(part)
    return _starred(name, spans)


def _index_span(segment: str, container: str, *, first: bool) -> tuple[int, int] | None:
    """Return where in a path segment a block index stands, or None."""
    if _NUMBER.fullmatch(segment):
        return (0, len(segment)) if first or _says_block(container) else None
    numbered = _NUMBERED_WORD.fullmatch(segment)
    if numbered is None:
        return None
    if _says_block(numbered[1]) or (first and _NUMBERED_MODULE.fullmatch(segment)):
        return numbered.span(2)
    return None


def _says_block(text: str) -> bool:
    words = _WORDS.findall(text.lower())
    return bool(words) and words[-1] in _BLOCK_WORDS


def _starred(name: str, spans: Sequence[tuple[int, int]]) -> tuple[str, tuple[int, ...]]:
    indices = tuple(int(name[start:stop]) for start, stop in spans)
    for start, stop in reversed(spans):
        name = f"{name[:start]}*{name[stop:]}"
    return name, indices


def check_templates(field: str, templates: Sequence[str]) -> tuple[str, ...]:
    """Return the role templates, checked.

    Raises:
        InvalidValueError: Too many, too long, or one without ``*``.
    """
    _check_count(field, len(templates))
    for i, template in enumerate(templates):
        _check_pattern(f"{field}[{i}]", template)
        if "*" not in template:
            raise InvalidValueError(
                f"{field}[{i}]",
                f"{shown(template)} has no *; write the beginning of the names with * where a "
                "block index stands, such as encoder.s*.u*",
            )
    return tuple(templates)


def _template_pattern(template: str) -> re.Pattern[str]:
    body = re.escape(template.rstrip("./")).replace(r"\*", "([0-9]+)")
    return re.compile(rf"{body}(?=[./]|$)")


@dataclass(frozen=True, slots=True)
class GroupAlias:
    """Another spelling of a base model's groups.

    Attributes:
        pattern: The other spelling: a whole name with ``*`` for a block index and ``**`` for any
            further text, such as ``blocks_*/attn/qkv/kernel``.
        target: The base model's spelling with the same wildcards in the same order, such as
            ``blocks.*.attn.qkv.weight``.
    """

    pattern: str
    target: str


def check_aliases(field: str, aliases: Sequence[GroupAlias]) -> tuple[GroupAlias, ...]:
    """Return the alias table, checked.

    Raises:
        InvalidValueError: Too many, too long, empty, or with other wildcards on the two sides.
    """
    _check_count(field, len(aliases))
    for i, alias in enumerate(aliases):
        _check_pattern(f"{field}[{i}].pattern", alias.pattern)
        _check_pattern(f"{field}[{i}].target", alias.target)
        if _wildcards(alias.pattern) != _wildcards(alias.target):
            raise InvalidValueError(
                f"{field}[{i}].target",
                f"{shown(alias.target)} has other wildcards than the pattern "
                f"{shown(alias.pattern)}; write the same ones in the same order",
            )
    return tuple(aliases)


class AliasTable:
    """Rewrites other spellings into the base model's; the first alias that fits decides.

    Args:
        aliases: The aliases, checked.
    """

    def __init__(self, aliases: Sequence[GroupAlias]) -> None:
        self._rules = [(_alias_pattern(a.pattern), re.split(r"\*+", a.target)) for a in aliases]

    def rewritten(self, name: str) -> str | None:
        """Return the base model's spelling of a name or role, or None if no alias fits."""
        for pattern, pieces in self._rules:
            fitting = pattern.fullmatch(name)
            if fitting:
                filled = [*fitting.groups(), ""]
                return "".join(piece + fill for piece, fill in zip(pieces, filled, strict=True))
        return None


def _wildcards(text: str) -> list[str]:
    return re.findall(r"\*+", text)


def _alias_pattern(pattern: str) -> re.Pattern[str]:
    # A `*` also stands for itself: the table rewrites roles that a client gave, too.
    parts = re.split(r"(\*+)", pattern)
    kinds = {"*": r"([0-9]+|\*)", "**": "(.+)"}
    return re.compile("".join(kinds.get(part, re.escape(part)) for part in parts))


def _check_count(field: str, count: int) -> None:
    if count > MAX_TEMPLATES:
        raise InvalidValueError(field, f"{count} entries, but at most {MAX_TEMPLATES} are allowed")


def _check_pattern(field: str, text: str) -> None:
    if not 1 <= len(text) <= MAX_PATTERN_CHARACTERS:
        raise InvalidValueError(
            field, f"{len(text)} characters, but 1 to {MAX_PATTERN_CHARACTERS} are needed"
        )
    if "***" in text:
        raise InvalidValueError(field, f"{shown(text)} has ***; write * for an index or ** for any")
