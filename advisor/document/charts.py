"""The kinds of pictures in a report: lines, stacked areas, bars and ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from advisor.document import svg
from advisor.document.scales import (
    Scale,
    exact_scale,
    linear_scale,
    log_scale,
    value_scale,
)
from advisor.report.words import format_number

WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 28, 42
_BAR = 10
_MAX_BESIDE = 210  # width of names beside their bars; longer ones are above
_PAGE = 850  # height of rows that fit on a page of A4, with an axis and a caption


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a picture.

    Attributes:
        values: A value at each step; None: a gap.
        color: Its color.
        dashes: As in :func:`.svg.curve`.
    """

    values: Sequence[float | None]
    color: str
    dashes: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """A range at each step; None: there is none."""

    low: Sequence[float | None]
    high: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes show, and a description of the picture.

    Attributes:
        x: The horizontal axis, with its unit.
        y: The vertical axis, with its unit; empty: there is none.
        description: What the picture shows, for screen readers.
        is_signed: Whether values may be negative; the vertical axis then spans what there is.
    """

    x: str
    y: str
    description: str
    is_signed: bool = False


def line_chart(
    steps: Sequence[int],
    lines: Sequence[Line],
    axes: Axes,
    *,
    band: Band | None = None,
    height: int = 230,
) -> Markup:
    """Return values by step. Lines break at gaps, and where steps go back.

    Args:
        steps: The steps.
        lines: The lines; the last one is on top.
        axes: The axes.
        band: A range that is shown behind the lines.
        height: Height of the picture.
    """
    bottom = height - _BOTTOM
    across = exact_scale(steps, _LEFT, WIDTH - _RIGHT)
    shown = [value for each in lines for value in each.values if value is not None]
    if band is not None:
        shown += [value for value in (*band.low, *band.high) if value is not None]
    up = (linear_scale if axes.is_signed else value_scale)(shown, bottom, _TOP)
    pieces = [svg.left_axis(up, _LEFT, WIDTH - _RIGHT, axes.y)]
    if band is not None:
        pieces += _band(steps, band, across, up)
    for each in lines:
        found = _pieces(steps, each.values, across, up)
        pieces.append(svg.curve(found, each.color, dashes=each.dashes))
    pieces.append(svg.bottom_axis(across, bottom, axes.x))
    return svg.picture(WIDTH, height, axes.description, pieces)


def _band(steps: Sequence[int], band: Band, across: Scale, up: Scale) -> list[Markup]:
    lows, highs = (_pieces(steps, values, across, up) for values in (band.low, band.high))
    return [
        svg.area(high, low, svg.REST, 0.4)
        for low, high in zip(lows, highs, strict=True)
        if len(low) > 1
    ]


def _pieces(
    steps: Sequence[int], values: Sequence[float | None], across: Scale, up: Scale
) -> list[list[tuple[float, float]]]:
    """Return the points of a line, divided at gaps and where steps go back."""
    found: list[list[tuple[float, float]]] = [[]]
    last: int | None = None
    for step, value in zip(steps, values, strict=True):
        is_drawn = value is not None and not (up.is_log and value <= 0)
        if not is_drawn or (last is not None and step < last):
            found.append([])
        last = step
        if is_drawn and value is not None:
            found[-1].append((across.at(step), up.at(value)))
    return [piece for piece in found if piece]


def stacked_chart(
    steps: Sequence[int], shares: Sequence[Sequence[float]], colors: Sequence[str], axes: Axes
) -> Markup:
    """Return shares by step, one above the other; negative ones go down from 0.

    Args:
        steps: The steps.
        shares: The shares of all parts at each step, ratios.
        colors: The color of each part.
        axes: The axes.
    """
    height = 260
    bottom = height - _BOTTOM
    above = [[_stack(row, part, 1) for row in shares] for part in range(len(colors))]
    below = [[_stack(row, part, -1) for row in shares] for part in range(len(colors))]
    layers = [*zip(above, colors, strict=True), *zip(below, colors, strict=True)]
    layers = [(ends, color) for ends, color in layers if any(low != high for low, high in ends)]
    ends = [round(100 * end, 3) for layer, _ in layers for pair in layer for end in pair]
    across = exact_scale(steps, _LEFT, WIDTH - _RIGHT)
    up = exact_scale([0.0, 100.0, *ends], bottom, _TOP)
    pieces = [svg.left_axis(up, _LEFT, WIDTH - _RIGHT, axes.y)]
    for layer, color in layers:
        for start, end in _rising(steps):
            pieces.append(_layer(steps[start:end], layer[start:end], color, across, up))
    pieces.append(svg.bottom_axis(across, bottom, axes.x))
    return svg.picture(WIDTH, height, axes.description, pieces)


def _stack(shares: Sequence[float], part: int, sign: int) -> tuple[float, float]:
    """Return where a part's area begins and ends, beyond those of the parts before it.

    Args:
        shares: The shares of all parts.
        part: The part.
        sign: 1: what shares above 0 stack up; -1: what those below 0 do.
    """
    own = [share if share * sign > 0 else 0.0 for share in shares[: part + 1]]
    return sum(own[:-1]), sum(own)


def _layer(
    steps: Sequence[int],
    ends: Sequence[tuple[float, float]],
    color: str,
    across: Scale,
    up: Scale,
) -> Markup:
    places = [across.at(step) for step in steps]
    if len(places) == 1:  # a single measurement is a bar
        places, ends = [places[0] - _BAR, places[0] + _BAR], [*ends, *ends]
        places = [min(max(place, across.start), across.end) for place in places]
    lower = [(x, up.at(100 * low)) for x, (low, _) in zip(places, ends, strict=True)]
    upper = [(x, up.at(100 * high)) for x, (_, high) in zip(places, ends, strict=True)]
    return svg.area(upper, lower, color)


def _rising(steps: Sequence[int]) -> list[tuple[int, int]]:
    """Return the stretches in which steps do not go back, as half-open ranges of indices."""
    starts = [0, *(i for i in range(1, len(steps)) if steps[i] < steps[i - 1])]
    return list(zip(starts, [*starts[1:], len(steps)], strict=True))


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its name above it.

    Attributes:
        name: What it shows.
        value: Its length; it may be negative.
        words: The value in words.
    """

    name: str
    value: float
    words: str


def bar_chart(bars: Sequence[Bar], axes: Axes) -> Markup:
    """Return horizontal bars in percent, each beside its name, or below it.

    Args:
        bars: The bars.
        axes: The axes; there is no vertical one.
    """
    rows = _Rows.of([bar.name for bar in bars])
    scale = linear_scale([0.0, *(bar.value for bar in bars)], rows.left, WIDTH - 60)
    pieces = rows.names()
    zero = scale.at(0)
    for bar, y in zip(bars, rows.middles, strict=True):
        end = scale.at(bar.value)
        left, right = min(zero, end), max(zero, end)
        pieces.append(svg.rectangle(left, y - _BAR / 2, right - left, _BAR, svg.COLORS[0]))
        pieces.append(svg.text(right + 5, y + 4, bar.words, color=svg.INK))
    pieces.append(svg.bottom_axis(scale, rows.bottom, axes.x))
    return svg.picture(WIDTH, rows.bottom + _BOTTOM - 4, axes.description, pieces)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a picture with a name each.

    Attributes:
        labels: The names, cut where they are too long.
        is_beside: Whether names are beside what they name, rather than above it.
        left: Where there is room for what they name.
    """

    labels: Sequence[str]
    is_beside: bool
    left: float

    @classmethod
    def of(cls, names: Sequence[str]) -> _Rows:
        """Return rows for some names: beside what they name, if all are short."""
        widest = max(map(svg.width_of, names), default=0)
        if widest <= _MAX_BESIDE:
            return cls(names, True, widest + 14)
        return cls([svg.shortened(name, WIDTH - 70) for name in names], False, 6)

    def part(self, start: int, end: int) -> _Rows:
        """Return some of the rows, in the same form."""
        return replace(self, labels=self.labels[start:end])

    @property
    def height(self) -> float:
        """Height of a row."""
        return 20 if self.is_beside else 38

    @property
    def bottom(self) -> float:
        """The lower end of all rows."""
        return len(self.labels) * self.height + 4

    @property
    def middles(self) -> list[float]:
        """The height at which each row shows its value."""
        within = self.height / 2 if self.is_beside else 28
        return [i * self.height + within for i in range(len(self.labels))]

    def names(self) -> list[Markup]:
        """Return the names."""
        if self.is_beside:
            return [
                svg.text(self.left - 10, y + 4, name, anchor="end", color=svg.INK)
                for name, y in zip(self.labels, self.middles, strict=True)
            ]
        return [
            svg.text(4, i * self.height + 14, name, color=svg.INK)
            for i, name in enumerate(self.labels)
        ]


@dataclass(frozen=True, slots=True)
class ValueRange:
    """A range on a logarithmic axis, with its name above it.

    Attributes:
        name: What it shows.
        low: The smallest value, above 0.
        middle: The typical value.
        high: The largest value.
        marks: Further values that are marked, such as outliers.
    """

    name: str
    low: float
    middle: float
    high: float
    marks: Sequence[float] = ()


def range_charts(ranges: Sequence[ValueRange], axes: Axes) -> list[Markup]:
    """Return ranges of factors, with a line at 1, in pictures that each fit on a page.

    Args:
        ranges: The ranges.
        axes: The axes, which are the same in all pictures; there is no vertical one.
    """
    rows = _Rows.of([each.name for each in ranges])
    ends = [value for each in ranges for value in (each.low, each.high, *each.marks)]
    scale = log_scale([1.0, *ends], rows.left + 18, WIDTH - 60)
    pictures = math.ceil(rows.bottom / _PAGE)
    size = max(math.ceil(len(ranges) / pictures), 1)
    return [
        _range_chart(ranges[i : i + size], rows.part(i, i + size), scale, axes)
        for i in range(0, len(ranges), size)
    ]


def _range_chart(ranges: Sequence[ValueRange], rows: _Rows, scale: Scale, axes: Axes) -> Markup:
    color = svg.COLORS[0]
    pieces = [svg.line((scale.at(1), 0), (scale.at(1), rows.bottom), svg.MUTED, 1.5)]
    pieces += rows.names()
    for each, y in zip(ranges, rows.middles, strict=True):
        pieces.append(svg.line((scale.at(each.low), y), (scale.at(each.high), y), color, 4))
        pieces.append(svg.circle(scale.at(each.middle), y, color, 5))
        pieces += [_cross(scale.at(mark), y) for mark in each.marks]
        at = max(scale.at(value) for value in (each.high, *each.marks))
        pieces.append(svg.text(at + 10, y + 4, format_number(each.middle, 3), color=svg.INK))
    pieces.append(svg.bottom_axis(scale, rows.bottom, axes.x))
    return svg.picture(WIDTH, rows.bottom + _BOTTOM - 4, axes.description, pieces)


def _cross(x: float, y: float) -> Markup:
    color = svg.COLORS[5]
    return svg.joined([
        svg.line((x - 5, y - 5), (x + 5, y + 5), color, 2),
        svg.line((x - 5, y + 5), (x + 5, y - 5), color, 2),
    ])
