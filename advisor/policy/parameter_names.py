"""What is read off a parameter's name: wrappers, block indices, other numbers.

A **role** is a name with its block indices taken out, ``*`` in their place. Which numbers are block
indices is found out from the paths of all names of a model:

* a number whose container says that it holds blocks (``layers.2``, ``layer1``, ``encoderblock_3``,
  the layers of a recurrent network: ``weight_hh_l0``);
* a number right after another index (``stages.2.0``: stage and block);
* the first number of a name, whatever its container is called (``net.3``, Flax's ``Net_3``);

but of the last two only those whose container holds modules with parts of their own, at one number
at least; and inside of a block only modules with parts, or experts, are blocks themselves.
``features.4.weight`` is the fifth layer of a sequence, and the sixth may be of another kind. Such a
number is **fixed**: it stays in the role, and stands for the same only where its container holds
the same numbers.

Where that is not what a model means, **role templates** say it: a template is the beginning of a
name with ``*`` for each index, such as ``encoder.s*.u*``; the first that fits decides, and no other
number of the name is an index.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from advisor.policy.control_characters import check_controls
from advisor.policy.errors import InvalidValueError, shown

MAX_TEMPLATES = 256
MAX_PATTERN_CHARACTERS = 512

_SEPARATORS = re.compile(r"([./])")
# How containers of repeated blocks are called in torchvision, Hugging Face, diffusers, fairseq,
# Flax and Megatron: whole words, and ends of words such as encoderblock or DecoderLayer.
_BLOCK_WORDS = frozenset({"h", "cell", "cells", "unit", "units", "attentions", "transformers"})
_STAGE_WORDS = frozenset({"stage", "stages", "level", "levels"})
_BLOCK_ENDS = ("block", "blocks", "layer", "layers", "resnet", "resnets", "stage", "stages")
_EXPERT_ENDS = ("expert", "experts")
_NUMBERED_WORD = re.compile(r"([A-Za-z][A-Za-z_]*?)_?([0-9]+)")
_FLAX_MODULE = re.compile(r"[A-Z][A-Za-z]*_[0-9]+")
_RECURRENT_LAYER = re.compile(r"([A-Za-z_]+_l)([0-9]+)(?:_reverse)?")
_TENSORS = frozenset({"weight", "bias"})
_MOST_NUMBERS = 8  # of a name that are looked at; no model nests deeper
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


class Axis(enum.Enum):
    """What the blocks along an index are."""

    DEPTH = "depth"
    STAGE = "stage"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a name is read.

    Attributes:
        role: The name with ``*`` for each block index.
        numbers: The block indices, outermost first, as they are written.
        prefixes: What stands before each of them, further indices as ``*``.
        fixed: What stands before each other number of the path, indices as ``*``, and that number.
    """

    role: str
    numbers: tuple[int, ...] = ()
    prefixes: tuple[str, ...] = ()
    fixed: tuple[tuple[str, int], ...] = ()


def containers_of_modules(names: Iterable[str]) -> frozenset[str]:
    """Return what stands before those numbers that hold a module in at least one name.

    Args:
        names: All names of a model.
    """
    return frozenset(
        name[: number.start]
        for name in names
        for number in _numbers(name)
        if number.segment < number.last - 1
    )


def spell(
    name: str,
    templates: Sequence[re.Pattern[str]] = (),
    containers: frozenset[str] | None = None,
) -> Spelling:
    """Return how a name is read.

    Args:
        name: The name.
        templates: Role templates, compiled, tried in order before the indices are looked for.
        containers: :func:`containers_of_modules` of the whole model; None: of this name alone.
    """
    numbers = _numbers(name)
    for template in templates:
        fitting = template.match(name)
        if fitting:
            spans = [fitting.span(i + 1) for i in range(len(fitting.groups()))]
            return _spelling(name, spans, [n.span for n in numbers if n.span not in spans])
    if containers is None:
        containers = containers_of_modules([name])
    spans, others, after = [], [], None
    for number in numbers:
        follows = number.plain and after == number.segment - 1
        implied = not spans and (number.plain or number.is_flax_module)
        of_modules = name[: number.start] in containers
        # Inside of a block, a numbered layer without parts (ff.layer_1) is one of its own kind.
        in_blocks = number.in_blocks and (of_modules or not spans or number.of_experts)
        if in_blocks or (of_modules and (implied or follows)):
            spans.append(number.span)
            after = number.segment
        else:
            others.append(number.span)
    return _spelling(name, spans, others)


def axes_of(role: str, count: int) -> tuple[Axis, ...]:
    """Return what the blocks along each index of a role are.

    Args:
        role: The role.
        count: Number of its indices; a given role may show another number of ``*``.
    """
    before = role.split("*")[:-1]
    if len(before) != count:
        return (Axis.DEPTH,) * count
    return tuple(_axis(text) for text in before)


@dataclass(frozen=True, slots=True)
class _Number:
    """A number in a path: where it stands, and what is said of it there."""

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
    last = len(segments) - 1
    found: list[_Number] = []
    position = 0
    for i, segment in enumerate(segments):
        if len(found) == _MOST_NUMBERS:
            break
        plain = _NUMBER.fullmatch(segment)
        numbered = _NUMBERED_WORD.fullmatch(segment)
        if i == last:
            numbered = _RECURRENT_LAYER.fullmatch(segment) or numbered
        if plain or numbered:
            container = numbered[1] if numbered else segments[i - 1] if i else ""
            start, stop = numbered.span(2) if numbered else (0, len(segment))
            in_blocks = _says_block(container)
            if i == last and numbered:
                in_blocks = bool(_RECURRENT_LAYER.fullmatch(segment)) or (
                    container in _TENSORS and any(map(_says_experts, segments[:i]))
                )
            found.append(
                _Number(
                    position + start,
                    position + stop,
                    i,
                    last,
                    bool(plain),
                    bool(_FLAX_MODULE.fullmatch(segment)),
                    in_blocks,
                    in_blocks and (_says_experts(container) or container in _TENSORS),
                )
            )
        position += len(segment) + 1
    return found


def _last_word(text: str) -> str:
    words = _WORDS.findall(text.lower())
    return words[-1] if words else ""


def _says_block(text: str) -> bool:
    word = _last_word(text)
    return word in _BLOCK_WORDS | _STAGE_WORDS or word.endswith(_BLOCK_ENDS + _EXPERT_ENDS)


def _says_experts(text: str) -> bool:
    return _last_word(text).endswith(_EXPERT_ENDS)


def _axis(text: str) -> Axis:
    word = _last_word(text.rstrip("./_"))
    within = word in _TENSORS and any(map(_says_experts, _SEPARATORS.split(text)[::2]))
    if word.endswith(_EXPERT_ENDS) or within:  # experts.linear.weight3: a tensor for each expert
        return Axis.EXPERT
    return Axis.STAGE if word in _STAGE_WORDS else Axis.DEPTH


def _spelling(
    name: str, spans: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]
) -> Spelling:
    def starred(stop: int) -> str:
        text, position = "", 0
        for start, end in spans:
            if end > stop:
                break
            text += name[position:start] + "*"
            position = end
        return text + name[position:stop]

    return Spelling(
        starred(len(name)),
        tuple(int(name[start:stop]) for start, stop in spans),
        tuple(starred(start) for start, _ in spans),
        tuple((starred(start), int(name[start:stop])) for start, stop in others),
    )


def check_templates(field: str, templates: Sequence[str]) -> tuple[str, ...]:
    """Return the role templates, checked.

    Raises:
        InvalidValueError: Too many, too long, or one without ``*``.
    """
    check_count(field, len(templates))
    for i, template in enumerate(templates):
        check_pattern(f"{field}[{i}]", template)
        if "*" not in template or "**" in template:
            what = "**, which stands for no index" if "**" in template else "no *"
            raise InvalidValueError(
                f"{field}[{i}]",
                f"{shown(template)} has {what}; write the beginning of the names with * where a "
                "block index stands, such as encoder.s*.u*",
            )
    return tuple(templates)


def check_count(field: str, count: int) -> None:
    """Refuse too many templates or aliases.

    Raises:
        InvalidValueError: There are.
    """
    if count > MAX_TEMPLATES:
        raise InvalidValueError(field, f"{count} entries, but at most {MAX_TEMPLATES} are allowed")


def check_pattern(field: str, text: str) -> None:
    """Refuse a pattern that is empty, too long, or not clear.

    Raises:
        InvalidValueError: It is.
    """
    if not 1 <= len(text) <= MAX_PATTERN_CHARACTERS:
        raise InvalidValueError(
            field, f"{len(text)} characters, but 1 to {MAX_PATTERN_CHARACTERS} are needed"
        )
    check_controls(field, text)
    if "***" in text:
        raise InvalidValueError(field, f"{shown(text)} has ***; write * for an index or ** for any")
    # So each * ends where its digits end, and matching takes time in proportion to the name.
    if re.search(r"\*[0-9]|[0-9]\*", text):
        raise InvalidValueError(
            field, f"{shown(text)} has a digit beside a *; an index is the whole number"
        )


def compiled(templates: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """Return role templates as :func:`spell` takes them: once a layout, not once a name."""
    bodies = [
        re.escape(template.rstrip("./")).replace(r"\*", "([0-9]++)") for template in templates
    ]
    return tuple(re.compile(rf"{body}(?=[./]|$)") for body in bodies)
