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
from functools import lru_cache
from typing import NamedTuple

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
_DIGITS = re.compile(r"([0-9]+)")
_WORDS = re.compile(r"[A-Za-z]+")

_Places = tuple[int, ...]


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


def parse_names(
    names: Sequence[str], templates: Sequence[re.Pattern[str]] = ()
) -> list[ParsedName]:
    """Parse all parameter names of a model.

    Names that differ only in their numbers are parsed once: a large model has a few kinds of them.

    Args:
        names: The names.
        templates: Compiled role templates, tried in order before the general rules.
    """
    pieces = [_DIGITS.split(name) for name in names]  # text and digits in turns
    shapes = ["0".join(piece[::2]) for piece in pieces]
    numbers = [*map(_numbers_of_shape, shapes)]
    containers = frozenset(
        _before(piece, number.place)
        for piece, own in zip(pieces, numbers, strict=True)
        for number in own
        if number.holds_parts
    )
    indices: dict[tuple[str, tuple[bool, ...]], _Places] = {}
    kinds: dict[tuple[str, _Places, tuple[str, ...]], ParsedName] = {}
    found = []
    for name, piece, shape, own in zip(names, pieces, shapes, numbers, strict=True):
        places = _template_places(name, templates) if templates else None
        if places is None:
            of_modules = tuple([
                number.holds_parts or _before(piece, number.place) in containers for number in own
            ])
            places = indices.get((shape, of_modules))
            if places is None:
                places = indices[shape, of_modules] = _index_places(own, of_modules)
        digits = piece[1::2]
        others = tuple([each for i, each in enumerate(digits) if i not in places])
        kind = kinds.get((shape, places, others))
        if kind is None:
            kind = kinds[shape, places, others] = _parsed(piece, places, own)
        values = tuple([int(digits[place]) for place in places])
        found.append(ParsedName(kind.role, values, kind.prefixes, kind.fixed))
    return found


def parse_name(name: str, templates: Sequence[re.Pattern[str]] = ()) -> ParsedName:
    """Parse a parameter name of which no other names are known.

    Args:
        name: The name.
        templates: Compiled role templates, tried in order before the general rules.
    """
    return parse_names([name], templates)[0]


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


class _Written(NamedTuple):
    """How a segment of a path writes a number.

    Attributes:
        start: Position of its first digit in the segment.
        stop: Position after its last digit.
        plain: Whether the segment consists of the number only.
        is_flax_module: Whether the segment reads like ``Dense_0``.
        in_blocks: Whether the name says that the container holds blocks.
        of_experts: Whether the name says that these are experts.
    """

    start: int
    stop: int
    plain: bool
    is_flax_module: bool
    in_blocks: bool
    of_experts: bool


class _Number(NamedTuple):
    """A number in a path.

    Attributes:
        place: Its place among all numbers of the name.
        segment: Index of its segment in the path.
        holds_parts: Whether a module with parts of its own follows it.
        written: How its segment writes it.
    """

    place: int
    segment: int
    holds_parts: bool
    written: _Written


@lru_cache(maxsize=1_024)
def _numbers_of_shape(shape: str) -> tuple[_Number, ...]:
    """Return the numbers of a name's path.

    Args:
        shape: The name with 0 in place of each number.
    """
    segments = _SEPARATORS.split(shape)[::2]
    last = len(segments) - 1
    found: list[_Number] = []
    offset, before = 0, ""
    place, counted = 0, 0  # numbers before this position of the name
    for i, segment in enumerate(segments):
        if len(found) == _MAX_NUMBERS:
            break
        written = _written(segment, before, is_last=i == last)
        if written is not None:
            if i == last and not written.in_blocks and not written.plain:
                written = _of_last_segment(segments, written)
            start = offset + written.start
            place += len(_DIGITS.findall(shape, counted, start))
            counted = start
            found.append(_Number(place, i, i < last - 1, written))
        offset += len(segment) + 1
        before = segment
    return tuple(found)


@lru_cache(maxsize=1_024)
def _written(segment: str, before: str, *, is_last: bool) -> _Written | None:
    """Return how a segment writes a number; None: it has none.

    Args:
        segment: The segment.
        before: The segment before it; empty: there is none.
        is_last: Whether it is the path's last one.
    """
    recurrent = _RECURRENT_LAYER.fullmatch(segment) if is_last else None
    numbered = recurrent or _NUMBERED_WORD.fullmatch(segment)
    if numbered:
        container, (start, stop) = numbered[1], numbered.span(2)
    elif _DIGITS.fullmatch(segment):
        container, start, stop = before, 0, len(segment)
    else:
        return None
    in_blocks = recurrent is not None if is_last and numbered else _says_blocks(container)
    return _Written(
        start=start,
        stop=stop,
        plain=numbered is None,
        is_flax_module=_FLAX_MODULE.fullmatch(segment) is not None,
        in_blocks=in_blocks,
        of_experts=in_blocks and (_says_experts(container) or container in _TENSORS),
    )


def _of_last_segment(segments: Sequence[str], written: _Written) -> _Written:
    """Return how the last segment of a path writes its number, given the path.

    A numbered tensor such as ``weight3`` belongs to an expert if the path says so.
    """
    container = segments[-1][: written.start].removesuffix("_")
    if container in _TENSORS and any(map(_says_experts, segments[:-1])):
        return written._replace(in_blocks=True, of_experts=True)
    return written


def _before(pieces: Sequence[str], place: int) -> str:
    """Return what precedes a number in a name: its container."""
    return "".join(pieces[: 2 * place + 1])


def _template_places(name: str, templates: Iterable[re.Pattern[str]]) -> _Places | None:
    """Return which numbers of a name the first fitting template says are indices.

    Each ``*`` stands for a whole number.

    Returns:
        Their places among all numbers of the name; None: no template fits.
    """
    for template in templates:
        fitting = template.match(name)
        if fitting:
            starts = [fitting.start(i + 1) for i in range(len(fitting.groups()))]
            return tuple(len(_DIGITS.findall(name[:start])) for start in starts)
    return None


def _index_places(numbers: Sequence[_Number], of_modules: Sequence[bool]) -> _Places:
    """Return which numbers of a name are block indices, by the general rules.

    Args:
        numbers: The numbers of its path.
        of_modules: Whether the container of each of them holds a module with parts.

    Returns:
        Their places among all numbers of the name.
    """
    found: list[int] = []
    previous: _Number | None = None
    for number, holds_modules in zip(numbers, of_modules, strict=True):
        if _is_block_index(number, previous, of_modules=holds_modules):
            found.append(number.place)
            previous = number
    return tuple(found)


def _is_block_index(number: _Number, previous: _Number | None, *, of_modules: bool) -> bool:
    """Return whether a number is a block index.

    Args:
        number: The number.
        previous: The index before it in the name, or None.
        of_modules: Whether its container holds a module with parts.
    """
    written = number.written
    # Inside a block, a numbered layer without parts (ff.layer_1) is the only one of its kind.
    if written.in_blocks and (of_modules or previous is None or written.of_experts):
        return True
    if not of_modules:
        return False
    if previous is None:
        return written.plain or written.is_flax_module
    return written.plain and number.segment == previous.segment + 1


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


def _parsed(pieces: Sequence[str], indices: _Places, numbers: Iterable[_Number]) -> ParsedName:
    """Return a parsed name, without the values of its block indices.

    Args:
        pieces: The name, as text and digits in turns.
        indices: Places of the block indices among the digits.
        numbers: The numbers of the path.
    """
    of_path = {number.place for number in numbers}
    prefixes: list[str] = []
    fixed: list[tuple[str, int]] = []
    text = pieces[0]  # what was read, with indices as *
    for place, (digits, following) in enumerate(zip(pieces[1::2], pieces[2::2], strict=True)):
        if place in indices:
            prefixes.append(text)
        elif place in of_path:
            fixed.append((text, int(digits)))
        text += ("*" if place in indices else digits) + following
    return ParsedName(text, prefixes=tuple(prefixes), fixed=tuple(fixed))
