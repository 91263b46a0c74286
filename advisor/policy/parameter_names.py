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
_MAX_CACHED_CHARACTERS = 256
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


def parse_names(
    names: Sequence[str], templates: Sequence[re.Pattern[str]] = ()
) -> list[ParsedName]:
    """Parse all parameter names of a model.

    Args:
        names: The names.
        templates: Compiled role templates, tried in order before the general rules.
    """
    numbers = [_numbers(name) for name in names]
    containers = _containers_of_modules(zip(names, numbers, strict=True))
    return [
        _parse(name, own, templates, containers) for name, own in zip(names, numbers, strict=True)
    ]


def containers_of_modules(names: Iterable[str]) -> frozenset[str]:
    """Return what precedes those numbers that hold a module with parts in at least one name.

    Args:
        names: All names of a model.
    """
    return _containers_of_modules((name, _numbers(name)) for name in names)


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
    if containers is None:
        containers = containers_of_modules([name])
    return _parse(name, _numbers(name), templates, containers)


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
        start: Position of its first digit in the name.
        stop: Position after its last digit.
        segment: Index of its segment in the path.
        last: Index of the path's last segment.
        written: How its segment writes it.
    """

    start: int
    stop: int
    segment: int
    last: int
    written: _Written

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.stop


def _numbers(name: str) -> list[_Number]:
    """Return the numbers of a name's path."""
    if len(name) > _MAX_CACHED_CHARACTERS:
        return [number for _, number in _numbers_of_shape(name)]
    spans = [match.span() for match in _NUMBER.finditer(name)]
    return [
        _Number(*spans[place], number.segment, number.last, number.written)
        for place, number in _numbers_of_shape(_NUMBER.sub("0", name))
    ]


# Names that differ only in their numbers have the same shape: a model has a few of them.
@lru_cache(maxsize=1_024)
def _numbers_of_shape(name: str) -> tuple[tuple[int, _Number], ...]:
    """Return the numbers of a name's path, each with its place among all digits of the name."""
    segments = _SEPARATORS.split(name)[::2]
    last = len(segments) - 1
    found: list[tuple[int, _Number]] = []
    offset, before = 0, ""
    for i, segment in enumerate(segments):
        if len(found) == _MAX_NUMBERS:
            break
        written = _written(segment, before, is_last=i == last)
        if written is not None:
            if i == last and not written.in_blocks and not written.plain:
                written = _of_last_segment(segments, written)
            start, stop = offset + written.start, offset + written.stop
            place = len(_NUMBER.findall(name[:start]))
            found.append((place, _Number(start, stop, i, last, written)))
        offset += len(segment) + 1
        before = segment
    return tuple(found)


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
    elif _NUMBER.fullmatch(segment):
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


def _containers_of_modules(names: Iterable[tuple[str, Sequence[_Number]]]) -> frozenset[str]:
    """Return what precedes numbers that hold a module with parts; see containers_of_modules."""
    return frozenset(
        name[: number.start]
        for name, numbers in names
        for number in numbers
        if number.segment < number.last - 1
    )


def _parse(
    name: str,
    numbers: Sequence[_Number],
    templates: Sequence[re.Pattern[str]],
    containers: frozenset[str],
) -> ParsedName:
    """Parse a name with the given numbers; see :func:`parse_name`."""
    for template in templates:
        fitting = template.match(name)
        if fitting:
            indices = {fitting.span(i + 1) for i in range(len(fitting.groups()))}
            # Each * stands for a whole number, so two spans are equal or apart.
            spans = sorted(indices.union(number.span for number in numbers))
            return _parsed(name, [(*span, span in indices) for span in spans])
    found: list[tuple[int, int, bool]] = []
    previous: _Number | None = None
    for number in numbers:
        of_modules = name[: number.start] in containers
        is_index = _is_block_index(number, previous, of_modules=of_modules)
        found.append((number.start, number.stop, is_index))
        if is_index:
            previous = number
    return _parsed(name, found)


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


def _parsed(name: str, numbers: Iterable[tuple[int, int, bool]]) -> ParsedName:
    """Return a parsed name.

    Args:
        name: The name.
        numbers: Start and stop of each number in it, in order, and whether it is a block index.
    """
    indices: list[int] = []
    prefixes: list[str] = []
    fixed: list[tuple[str, int]] = []
    text, position = "", 0  # what was read, with indices as *
    for start, stop, is_index in numbers:
        text += name[position:start]
        number = name[start:stop]
        if is_index:
            indices.append(int(number))
            prefixes.append(text)
            text += "*"
        else:
            fixed.append((text, int(number)))
            text += number
        position = stop
    return ParsedName(text + name[position:], tuple(indices), tuple(prefixes), tuple(fixed))
