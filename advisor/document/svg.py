"""Pieces of SVG pictures. Every text and value is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup
from rich.cells import cell_len

from advisor.document.scales import Scale

INK, MUTED, GRID = "#1a1a1a", "#5a5a5a", "#d9d9d9"
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6b5200"),
    "#6a3584",
)
"""Those of Okabe and Ito, a dark yellow and a violet, which color blindness leaves apart."""
REST = "#b0b0b0"
TEXT_SIZE = 11
_CHARACTER_WIDTH = 6.3  # of a usual sans serif at that size


def joined(pieces: Iterable[Markup]) -> Markup:
    """Return pieces one after the other."""
    return Markup("").join(pieces)


def text(x: float, y: float, words: str, *, anchor: str = "start", color: str = MUTED) -> Markup:
    """Return a line of text.

    Args:
        x: Where it is anchored.
        y: Its base line.
        words: The words.
        anchor: ``start``, ``middle`` or ``end``.
        color: Its color.
    """
    return Markup(
        '<text x="{}" y="{}" text-anchor="{}" font-size="{}" fill="{}" '
        'stroke="#fff" stroke-width="3" paint-order="stroke">{}</text>'
    ).format(x, y, anchor, TEXT_SIZE, color, words)


def line(
    start: tuple[float, float], end: tuple[float, float], color: str = GRID, width: float = 1
) -> Markup:
    """Return a straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{}" stroke-width="{}"/>').format(
        *start, *end, color, width
    )


def circle(x: float, y: float, color: str, radius: float = 3) -> Markup:
    """Return a filled circle."""
    return Markup('<circle cx="{}" cy="{}" r="{}" fill="{}"/>').format(x, y, radius, color)


def rectangle(x: float, y: float, width: float, height: float, color: str) -> Markup:
    """Return a filled rectangle."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="{}"/>').format(
        round(x, 2), round(y, 2), round(width, 2), round(height, 2), color
    )


def curve(
    pieces: Sequence[Sequence[tuple[float, float]]], color: str, *, dashes: str = ""
) -> Markup:
    """Return a curve of several pieces; a piece of one point is a dot.

    Args:
        pieces: The points of each piece.
        color: The color.
        dashes: Lengths of dashes and gaps, such as ``6 4``; empty: a whole line.
    """
    path = " ".join(f"M{_points(piece)}" for piece in pieces if len(piece) > 1)
    drawn = Markup(
        '<path d="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}" '
        'stroke-linejoin="round"/>'
    ).format(path, color, dashes or "none")
    dots = [circle(*piece[0], color) for piece in pieces if len(piece) == 1]
    return joined([*([drawn] if path else []), *dots])


def area(
    upper: Sequence[tuple[float, float]],
    lower: Sequence[tuple[float, float]],
    color: str,
    opacity: float = 1.0,
) -> Markup:
    """Return the filled area between two curves with the same places along x."""
    return Markup('<path d="M{}Z" fill="{}" fill-opacity="{}"/>').format(
        _points([*upper, *reversed(lower)]), color, opacity
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:g} {y:g}" for x, y in points)


def bottom_axis(scale: Scale, y: float, label: str, *, top: float | None = None) -> Markup:
    """Return a horizontal axis with its label below.

    Args:
        scale: The scale.
        y: The height of the axis.
        label: What it shows, with the unit.
        top: Grid lines reach up to here; None: there are none.
    """
    pieces = []
    for tick in scale.ticks:
        if top is not None:
            pieces.append(line((tick.at, top), (tick.at, y)))
        pieces.append(line((tick.at, y), (tick.at, y + 4), MUTED))
        pieces.append(text(tick.at, y + 17, tick.label, anchor="middle"))
    middle = (scale.start + scale.end) / 2
    pieces += [
        line((scale.start, y), (scale.end, y), MUTED),
        text(middle, y + 34, label, anchor="middle"),
    ]
    return joined(pieces)


def left_axis(scale: Scale, left: float, right: float, label: str) -> Markup:
    """Return a vertical axis with grid lines, and its label above.

    Args:
        scale: The scale.
        left: Where the grid begins.
        right: Where it ends.
        label: What it shows, with the unit.
    """
    pieces = [text(0, min(scale.start, scale.end) - 12, label)]
    for tick in scale.ticks:
        pieces.append(line((left, tick.at), (right, tick.at)))
        pieces.append(text(left - 8, tick.at + 4, tick.label, anchor="end"))
    return joined(pieces)


def picture(width: float, height: float, description: str, pieces: Iterable[Markup]) -> Markup:
    """Return a picture that is as wide as its page, with a description for screen readers.

    Args:
        width: Its width, in units of the pieces.
        height: Its height.
        description: What it shows.
        pieces: Its parts.
    """
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" font-family="inherit">{}</svg>'
    ).format(width, height, description, joined(pieces))


def width_of(words: str) -> float:
    """Return about how wide a line of text is; characters of Japanese are twice as wide."""
    return _CHARACTER_WIDTH * cell_len(words)


def shortened(words: str, width: float) -> str:
    """Return words that fit into a width; what is cut out is in the middle."""
    most = max(int(width / _CHARACTER_WIDTH), 8)
    if len(words) <= most:
        return words
    end = (most - 1) // 2
    return f"{words[: most - 1 - end]}…{words[-end:]}"


def swatch(color: str) -> Markup:
    """Return a small square of a color, for a legend."""
    return Markup('<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">{}</svg>').format(
        rectangle(0, 0, 10, 10, color)
    )
