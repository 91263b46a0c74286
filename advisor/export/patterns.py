"""Patterns that match given names and no others: regular expressions, globs and substrings.

A name is split at its numbers, ``blocks.3.mlp.weight`` into ``blocks.``, ``3`` and
``.mlp.weight``. A set of names is then covered by few **boxes**: products of one set of texts for
each part. A box becomes one regular expression, in which numbers are ranges of digits, so that
``blocks.12.mlp.weight`` is not matched where the model has 12 blocks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product

Box = tuple[frozenset[str], ...]
"""A set of texts for each part; it stands for all sequences of one text of each."""

_NUMBERS = re.compile(r"([0-9]+)")


def split_numbers(name: str) -> tuple[str, ...]:
    """Return the parts of a name: text at even positions, numbers at odd ones."""
    return tuple(_NUMBERS.split(name))


def boxes(sequences: Collection[tuple[str, ...]]) -> list[Box]:
    """Return disjoint boxes that together contain the given sequences and no others.

    First texts with the same continuations share boxes.

    Args:
        sequences: Sequences of the same length, at least one.
    """
    if not next(iter(sequences)):
        return [()]
    rests: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for first, *rest in sequences:
        rests[first].add(tuple(rest))
    firsts: defaultdict[frozenset[tuple[str, ...]], set[str]] = defaultdict(set)
    for first, found in rests.items():
        firsts[frozenset(found)].add(first)
    return [
        (frozenset(texts), *box)
        for found, texts in sorted(firsts.items(), key=lambda item: min(item[1]))
        for box in boxes(found)
    ]


def name_boxes(names: Iterable[str]) -> list[Box]:
    """Return boxes that together contain the given names and no others.

    The parts of a name are compared in three orders, as the best one depends on whether roles or
    blocks differ. The order with the fewest boxes is used.
    """
    by_length: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
    for name in names:
        parts = split_numbers(name)
        by_length[len(parts)].add(parts)
    found: list[Box] = []
    for length, sequences in sorted(by_length.items()):
        texts, numbers = range(0, length, 2), range(1, length, 2)
        orders = ((*range(length),), (*texts, *numbers), (*numbers, *texts))
        covers = [_boxes_in_order(sequences, order) for order in orders]
        fewest: list[Box] = min(covers, key=len)
        found += fewest
    return found


def regex(names: Collection[str]) -> str:
    """Return a regular expression that finds exactly the given names with ``re.search``.

    Names must not contain line breaks, before which ``$`` matches too.

    Args:
        names: At least one name.
    """
    alternatives = [_box_regex(box) for box in name_boxes(names)]
    return f"^{_either(alternatives)}$"


def globs(names: Collection[str]) -> list[str]:
    """Return patterns for :mod:`fnmatch` that together match exactly the given names.

    A glob has no alternatives, so each role has its own, and each range of numbers with the same
    number of digits.
    """
    found = []
    for box in name_boxes(names):
        parts = [
            _number_globs(texts) if i % 2 else sorted(map(_escape_glob, texts))
            for i, texts in enumerate(box)
        ]
        found += ["".join(chosen) for chosen in product(*parts)]
    return found


def substrings(values: Mapping[str, str], default: str = "") -> list[tuple[str, str]]:
    """Return ordered substrings; the first one that a name contains gives the name's value.

    A name without any of them has the default. All names of a role share one substring, if they
    have the same value: what follows their last number.

    Args:
        values: The value of each name.
        default: The value of names that contain no substring.
    """
    chosen = _tails(values, default)
    while True:
        ordered = sorted(chosen.items(), key=lambda item: (-len(item[0]), item[0]))
        wrong = [n for n in values if first_contained(n, ordered, default) != values[n]]
        if not wrong:
            return ordered
        chosen |= {name: values[name] for name in wrong}  # a full name precedes its parts


def first_contained(name: str, ordered: Iterable[tuple[str, str]], default: str) -> str:
    """Return the value of the first substring that a name contains.

    Args:
        name: The name.
        ordered: Substrings with their values.
        default: The value if there is none.
    """
    return next((value for text, value in ordered if text in name), default)


def _boxes_in_order(sequences: Collection[tuple[str, ...]], order: Sequence[int]) -> list[Box]:
    """Return boxes of sequences whose parts are compared in an order; parts stay in their own."""
    found = boxes({tuple(parts[i] for i in order) for parts in sequences})
    place = {part: position for position, part in enumerate(order)}
    return [tuple(box[place[part]] for part in range(len(order))) for box in found]


def _box_regex(box: Box) -> str:
    return "".join(
        _either(list(_number_pieces(texts))) if i % 2 else _text_regex(texts)
        for i, texts in enumerate(box)
    )


def _text_regex(texts: frozenset[str]) -> str:
    """Return a regular expression for texts; whole segments that they share are written once."""
    if len(texts) == 1:
        return re.escape(min(texts))
    known = [text.split(".") for text in sorted(texts)]
    room = min(map(len, known)) - 1  # each text keeps a segment of its own
    start = min(_shared(known), room)
    end = min(_shared([segments[::-1] for segments in known]), room - start)
    before, after = known[0][:start], known[0][len(known[0]) - end :]
    middles = (segments[start : len(segments) - end] for segments in known)
    inner = _either([re.escape(".".join(segments)) for segments in middles])
    return re.escape(".").join([*map(re.escape, before), inner, *map(re.escape, after)])


def _shared(known: Sequence[Sequence[str]]) -> int:
    """Return how many segments at the start are the same in all texts."""
    columns = enumerate(zip(*known, strict=False))
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, known)))


def _either(alternatives: Sequence[str]) -> str:
    return alternatives[0] if len(alternatives) == 1 else f"(?:{'|'.join(alternatives)})"


def _number_globs(numbers: frozenset[str]) -> list[str]:
    return list(_number_pieces(numbers))


def _number_pieces(numbers: frozenset[str]) -> Iterator[str]:
    """Yield sequences of digit classes, such as ``1[0-5]``, that together are the numbers."""
    by_length: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
    for number in numbers:
        by_length[len(number)].add(tuple(number))
    for _, digits in sorted(by_length.items()):
        for box in boxes(digits):
            yield "".join(map(_digit_class, box))


def _digit_class(digits: frozenset[str]) -> str:
    """Return a class of digits, as both regular expressions and globs write it."""
    if len(digits) == 1:
        return min(digits)
    runs: list[list[int]] = []
    for digit in sorted(map(int, digits)):
        if runs and runs[-1][-1] == digit - 1:
            runs[-1].append(digit)
        else:
            runs.append([digit])
    written = (f"{run[0]}-{run[-1]}" if len(run) > 2 else "".join(map(str, run)) for run in runs)
    return f"[{''.join(written)}]"


def _escape_glob(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _tails(values: Mapping[str, str], default: str) -> dict[str, str]:
    """Return a substring for each role, with its most frequent value, unless it is the default."""
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, value in values.items():
        parts = split_numbers(name)
        tail = parts[-1] if len(parts) > 1 and parts[-1] else name
        counts[tail][value] += 1
    most = {tail: max(found, key=lambda v: (found[v], v)) for tail, found in counts.items()}
    return {tail: value for tail, value in most.items() if value != default}
