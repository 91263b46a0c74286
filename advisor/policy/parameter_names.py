"""Parses parameter names: block indices, other numbers and the role.

A **role** is a name with ``*`` in place of its block indices. Which numbers are block indices
follows from the names of all parameters of a model:

* a number whose container is named after blocks (``layers.2``, ``layer1``, ``encoderblock_3``), or
  the layer of a recurrent network (``weight_hh_l0``);
* a number right after another index (``stages.2.0``: stage and block);
* the first number of a name, whatever its container is called (``net.3``, Flax's ``Net_3``).

The last two count only if the container holds a module with parts of its own under at least one
number. Inside a block, only experts and modules with parts are blocks themselves:
``features.4.weight`` is the fifth layer of a sequence, and the sixth may be of a different kind.
Such a number is **fixed**: it stays in the role, and roles correspond only if the containers hold
the same numbers.

**Role templates** override these rules. A template is the beginning of a name with ``*`` in place
of each index, such as ``encoder.s*.u*``. The first one that fits decides, and no other number of
the name is an index.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SEPARATORS = re.compile(r"([./])")
# Names of containers of repeated blocks in torchvision, Hugging Face, diffusers, fairseq, Flax and
# Megatron: whole words, and endings of words such as encoderblock or DecoderLayer.
_BLOCK_WORDS = frozenset({"h", "cell", "cells", "unit", "units", "attentions", "transformers"})
_STAGE_WORDS = frozenset({"stage", "stages", "level", "levels"})
_BLOCK_ENDS = ("block", "blocks", "layer", "layers", "resnet", "resnets", "stage", "stages")
_EXPERT_ENDS = ("expert", "experts")
_NUMBERED_WORD = re.compile(r"([A-Za-z][A-Za-z_]*?)_?([0-9]+)")
_FLAX_MODULE = re.compile(r"[A-Z][A-Za-z]*_[0-9]+")
_RECURRENT_LAYER = re.compile(r"([A-Za-z_]+_l)([0-9]+)(?:_reverse)?")
_TENSORS = frozenset({"weight", "bias"})
_MAX_NUMBERS = 8  # in a name; further ones are ignored, as no real model nests deeper
_NUMBER = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[A-Za-z]+")


class Axis(enum.Enum):
    """What the blocks along an index are."""

    DEPTH = "depth"
    STAGE = "stage"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class ParsedName:
    """A parameter name, parsed.

    Attributes:
        role: The name with ``*`` in place of each block index.
        numbers: The block indices as written in the name, outermost first.
        prefixes: What precedes each of them, with earlier indices as ``*``.
        fixed: What precedes each other number of the path, with indices as ``*``, and the number.
    """

    role: str
    numbers: tuple[int, ...] = ()
    prefixes: tuple[str, ...] = ()
    fixed: tuple[tuple[str, int], ...] = ()


def containers_of_modules(names: Iterable[str]) -> frozenset[str]:
    """Return what precedes those numbers that hold a module with parts in at least one name.

    Args:
        names: All names of a model.
    """
    return frozenset(
        name[: number.start]
        for name in names
        for number in _numbers(name)
        if number.segment < number.last - 1
    )


def parse_name(
    name: str,
    templates: Sequence[re.Pattern[str]] = (),
    containers: frozenset[str] | None = None,
) -> ParsedName:
    """Parse a parameter name.

    Args:
        name: The name.
        templates: Compiled role templates, tried in order before the general rules.
        containers: :func:`containers_of_modules` of the whole model; None: of this name only.
    """
    numbers = _numbers(name)
    for template in templates:
        fitting = template.match(name)
        if fitting:
            spans = [fitting.span(i + 1) for i in range(len(fitting.groups()))]
            return _parsed(name, spans, [n.span for n in numbers if n.span not in spans])
    if containers is None:
        containers = containers_of_modules([name])
    indices: list[tuple[int, int]] = []
    others: list[tuple[int, int]] = []
    previous: _Number | None = None
    for number in numbers:
        of_modules = name[: number.start] in containers
        if _is_block_index(number, previous, of_modules=of_modules):
            indices.append(number.span)
            previous = number
        else:
            others.append(number.span)
    return _parsed(name, indices, others)


def axes_of(role: str, count: int) -> tuple[Axis, ...]:
    """Return what the blocks along each index of a role are.

    Args:
        role: The role.
        count: Number of its indices; in a given role the number of ``*`` may differ.
    """
    before = role.split("*")[:-1]
    if len(before) != count:
        return (Axis.DEPTH,) * count
    return tuple(_axis(text) for text in before)


@dataclass(frozen=True, slots=True)
class _Number:
    """A number in a path.

    Attributes:
        start: Position of its first digit in the name.
        stop: Position after its last digit.
        segment: Index of its segment in the path.
        last: Index of the path's last segment.
        plain: Whether the segment consists of the number only.
        is_flax_module: Whether the segment reads like ``Dense_0``.
        in_blocks: Whether the name says that the container holds blocks.
        of_experts: Whether the name says that these are experts.
    """

    start: int
    stop: int
    segment: int
    last: int
    plain: bool
    is_flax_module: bool
    in_blocks: bool
    of_experts: bool

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.stop


def _numbers(name: str) -> list[_Number]:
    """Return the numbers of a name's path."""
    segments = _SEPARATORS.split(name)[::2]
    found: list[_Number] = []
    offset = 0
    for i, segment in enumerate(segments):
        if len(found) == _MAX_NUMBERS:
            break
        number = _number(segments, i, offset)
        if number is not None:
            found.append(number)
        offset += len(segment) + 1
    return found


def _number(segments: Sequence[str], i: int, offset: int) -> _Number | None:
    """Return the number in a segment, or None if it has none.

    Args:
        segments: The path.
        i: The segment.
        offset: Where the segment starts in the name.
    """
    segment, last = segments[i], len(segments) - 1
    recurrent = _RECURRENT_LAYER.fullmatch(segment) if i == last else None
    numbered = recurrent or _NUMBERED_WORD.fullmatch(segment)
    if numbered:
        container, (start, stop) = numbered[1], numbered.span(2)
    elif _NUMBER.fullmatch(segment):
        container, start, stop = segments[i - 1] if i else "", 0, len(segment)
    else:
        return None
    if i == last and numbered:
        numbered_expert = container in _TENSORS and any(map(_says_experts, segments[:i]))
        in_blocks = recurrent is not None or numbered_expert
    else:
        in_blocks = _says_blocks(container)
    return _Number(
        start=offset + start,
        stop=offset + stop,
        segment=i,
        last=last,
        plain=numbered is None,
        is_flax_module=_FLAX_MODULE.fullmatch(segment) is not None,
        in_blocks=in_blocks,
        of_experts=in_blocks and (_says_experts(container) or container in _TENSORS),
    )


def _is_block_index(number: _Number, previous: _Number | None, *, of_modules: bool) -> bool:
    """Return whether a number is a block index.

    Args:
        number: The number.
        previous: The index before it in the name, or None.
        of_modules: Whether its container holds a module with parts.
    """
    # Inside a block, a numbered layer without parts (ff.layer_1) is the only one of its kind.
    if number.in_blocks and (of_modules or previous is None or number.of_experts):
        return True
    if not of_modules:
        return False
    if previous is None:
        return number.plain or number.is_flax_module
    return number.plain and number.segment == previous.segment + 1


def _last_word(text: str) -> str:
    words = _WORDS.findall(text.lower())
    return words[-1] if words else ""


def _says_blocks(text: str) -> bool:
    word = _last_word(text)
    return word in _BLOCK_WORDS | _STAGE_WORDS or word.endswith(_BLOCK_ENDS + _EXPERT_ENDS)


def _says_experts(text: str) -> bool:
    return _last_word(text).endswith(_EXPERT_ENDS)


def _axis(text: str) -> Axis:
    word = _last_word(text.rstrip("./_"))
    # experts.linear.weight3: one tensor for each expert
    numbered_expert = word in _TENSORS and any(map(_says_experts, _SEPARATORS.split(text)[::2]))
    if word.endswith(_EXPERT_ENDS) or numbered_expert:
        return Axis.EXPERT
    return Axis.STAGE if word in _STAGE_WORDS else Axis.DEPTH


def _parsed(
    name: str, indices: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]
) -> ParsedName:
    """Return a parsed name, given where its block indices and its other numbers are."""

    def starred(stop: int) -> str:
        text, position = "", 0
        for start, end in indices:
            if end > stop:
                break
            text += name[position:start] + "*"
            position = end
        return text + name[position:stop]

    return ParsedName(
        starred(len(name)),
        tuple(int(name[start:stop]) for start, stop in indices),
        tuple(starred(start) for start, _ in indices),
        tuple((starred(start), int(name[start:stop])) for start, stop in others),
    )
