"""Roles of parameters: names with ``*`` in place of block indices, as the advisor derives them.

``blocks.0.w`` and ``blocks.1.w`` have one role. ``0.bias`` and ``2.bias`` of an ``nn.Sequential``
have two, because its layers may be of different kinds. :mod:`advisor.policy.parameter_names`
explains the rules; the advisor's answers have no roles, so these are the same rules once more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fslr.advisor.v1 import layout_pb2

_SEPARATOR = re.compile(r"[./]")
_WORDS = re.compile(r"[A-Za-z]+")
_PLAIN = re.compile(r"([0-9]+)")
_NUMBERED_WORD = re.compile(r"[A-Za-z][A-Za-z_]*?_?([0-9]+)")
_FLAX_MODULE = re.compile(r"[A-Z][A-Za-z]*_[0-9]+")
_RECURRENT_LAYER = re.compile(r"[A-Za-z_]+_l([0-9]+)(?:_reverse)?")
_BLOCKS = re.compile(
    r"(h|cells?|units?|attentions|transformers|levels?|.*(blocks?|layers?|resnets?|stages?|experts?))"
)
_EXPERTS = re.compile(r".*experts?")
_TENSORS = frozenset({"weight", "bias"})
_MAX_NUMBERS = 8  # in a name; further ones are ignored


@dataclass(frozen=True, slots=True)
class _Number:
    """A number in a path.

    Attributes:
        span: Positions of its first digit and after its last one.
        prefix: What precedes it in the name.
        segment: Index of its segment in the path.
        is_plain: Whether the segment consists of the number only.
        can_start: Whether it may be the first index of a name: it is plain or of a Flax module.
        in_blocks: Whether the name says that its container holds blocks.
        of_experts: Whether the name says that these are experts.
        holds_modules: Whether at least one part follows its segment, and further parts that one.
    """

    span: tuple[int, int]
    prefix: str
    segment: int
    is_plain: bool
    can_start: bool
    in_blocks: bool
    of_experts: bool
    holds_modules: bool


def roles_of_layout(layout: layout_pb2.Layout) -> list[str]:
    """Return the role of each group.

    Args:
        layout: The layout; its frozen parameters and role templates count.
    """
    names = [group.name for group in layout.groups]
    return roles_of([*names, *layout.frozen_names], layout.role_templates)[: len(names)]


def roles_of(names: Sequence[str], templates: Sequence[str] = ()) -> list[str]:
    """Return the role of each parameter of a model.

    Args:
        names: The names of all parameters.
        templates: Role templates of the layout, such as ``encoder.s*.u*``.
    """
    patterns = [
        re.compile(re.escape(text.rstrip("./")).replace(r"\*", "([0-9]+)") + r"(?=[./]|$)")
        for text in templates
    ]
    numbers = [_numbers(name) for name in names]
    containers = {n.prefix for own in numbers for n in own if n.holds_modules}
    return [
        _role(name, own, patterns, containers) for name, own in zip(names, numbers, strict=True)
    ]


def _role(
    name: str,
    numbers: Sequence[_Number],
    patterns: Sequence[re.Pattern[str]],
    containers: set[str],
) -> str:
    fitting = next(filter(None, (pattern.match(name) for pattern in patterns)), None)
    if fitting:
        spans = [fitting.span(i + 1) for i in range(len(fitting.groups()))]
    else:
        spans = []
        previous: _Number | None = None
        for number in numbers:
            if _is_index(number, previous, of_modules=number.prefix in containers):
                spans.append(number.span)
                previous = number
    for start, stop in reversed(spans):
        name = f"{name[:start]}*{name[stop:]}"
    return name


def _is_index(number: _Number, previous: _Number | None, *, of_modules: bool) -> bool:
    """Return whether a number is a block index, given the index before it in the name."""
    if number.in_blocks and (of_modules or previous is None or number.of_experts):
        return True
    if not of_modules:
        return False
    if previous is None:
        return number.can_start
    return number.is_plain and number.segment == previous.segment + 1


def _numbers(name: str) -> list[_Number]:
    """Return the numbers of a name's path."""
    segments = _SEPARATOR.split(name)
    found: list[_Number] = []
    offset = 0
    for i in range(len(segments)):
        number = _number(name, segments, i, offset)
        if number is not None and len(found) < _MAX_NUMBERS:
            found.append(number)
        offset += len(segments[i]) + 1
    return found


def _number(name: str, segments: Sequence[str], i: int, offset: int) -> _Number | None:
    """Return the number in a segment of a path; None: it has none."""
    segment, is_last = segments[i], i == len(segments) - 1
    plain = _PLAIN.fullmatch(segment)
    recurrent = _RECURRENT_LAYER.fullmatch(segment) if is_last else None
    match = recurrent or plain or _NUMBERED_WORD.fullmatch(segment)
    if match is None:
        return None
    start, stop = (offset + place for place in match.span(1))
    container = segments[i - 1] if plain and i else segment[: match.start(1)]
    tensor = container.removesuffix("_") in _TENSORS
    # experts.linear.weight3: one tensor for each expert
    is_expert = is_last and not plain and tensor and any(_says(_EXPERTS, s) for s in segments[:-1])
    if is_last and not plain:
        in_blocks = recurrent is not None or is_expert
    else:
        in_blocks = _says(_BLOCKS, container)
    return _Number(
        span=(start, stop),
        prefix=name[:start],
        segment=i,
        is_plain=plain is not None,
        can_start=plain is not None or _FLAX_MODULE.fullmatch(segment) is not None,
        in_blocks=in_blocks,
        of_experts=is_expert or (in_blocks and (_says(_EXPERTS, container) or tensor)),
        holds_modules=i < len(segments) - 2,
    )


def _says(pattern: re.Pattern[str], text: str) -> bool:
    """Return whether the last word of a text matches a pattern."""
    words = _WORDS.findall(text.lower())
    return bool(words) and pattern.fullmatch(words[-1]) is not None
