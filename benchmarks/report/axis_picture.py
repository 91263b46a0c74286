"""The picture of methods side by side: mean regret by what is scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.palette import ADVISED, PLAIN
from benchmarks.report.methods import SPOKEN, axis_name, known_methods, mean_of_finite
from benchmarks.transfer.records import Record, case_name

_MARKS: Final = {
    "standard": (PLAIN, "x"),
    "mup": ("#e0a030", "v"),
    "depth_mup": ("#b87333", "^"),
    "completep": ("#8c6d31", "D"),
    "flerm": ("#8e6c8a", "P"),
    "measured": (ADVISED, "o"),
    "hybrid": ("#14324a", "s"),
    "hybrid_standard": ("#4a90c2", "p"),
}
_LINEAR_NATS = 0.05  # regrets below it are drawn on a linear scale
_LEGEND_COLUMNS = 5  # at most, so that the legend is not wider than the picture
_HEIGHT = 0.8  # of the band of an axis, in rows


def axis_picture(records: Sequence[Record]) -> Figure:
    """Return the picture of mean regrets by axis and method, with intervals.

    Args:
        records: Records of methods, at least one.
    """
    axes_names = list(dict.fromkeys(record["axis"] for record in records))
    known = known_methods(records)
    row_inches = max(0.62, 0.15 * len(known))
    figure, axes = plt.subplots(
        figsize=(8, row_inches * len(axes_names) + 1.9), layout="constrained"
    )
    labels = []
    for row, axis in enumerate(axes_names):
        own = [record for record in records if record["axis"] == axis]
        count = len({case_name(record) for record in own})
        labels.append(f"{axis_name(axis)}\n{count} case{'s' if count > 1 else ''}")
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
        for place, method in enumerate(known):
            height = row + _HEIGHT * ((place + 0.5) / len(known) - 0.5)
            _draw(axes, [r for r in own if r["method"] == method], method, height)
    axes.set_yticks(range(len(axes_names)), labels)
    axes.set_ylim(len(axes_names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=_LINEAR_NATS)
    axes.set_xlim(left=min(axes.get_xlim()[0], -_LINEAR_NATS))  # zero is never at the edge
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(
        "loss at the base's best learning rate, above the best of a full search, nats\n"
        "large: mean with 90% interval; small dots: single cases"
    )
    for words, side in (("\N{LEFTWARDS ARROW} better than a search ", "right"),
                        (" worse \N{RIGHTWARDS ARROW}", "left")):  # fmt: skip
        axes.text(
            0, 1.0, words, transform=axes.get_xaxis_transform(), fontsize=9, color="#444444",
            horizontalalignment=side, verticalalignment="bottom",
        )  # fmt: skip
    for method in known:
        color, marker = _MARKS[method]
        axes.plot([], [], color=color, marker=marker, linestyle="", label=SPOKEN[method])
    rows = math.ceil(len(known) / _LEGEND_COLUMNS)
    columns = math.ceil(len(known) / rows)
    figure.legend(loc="outside upper center", ncols=columns, columnspacing=1.0)
    return figure


def _draw(axes: Axes, own: Sequence[Record], method: str, height: float) -> None:
    """Draw a method on an axis: its cases, their mean and its interval."""
    if not own:
        return
    color, marker = _MARKS[method]
    mean, diverged = mean_of_finite(own)
    if diverged:
        axes.text(
            1.005, height, f"{diverged} diverged", color=color, fontsize=8,
            transform=axes.get_yaxis_transform(), verticalalignment="center",
        )  # fmt: skip
    if mean is None:
        return
    known = [record["regret"] for record in own if record["regret"] is not None]
    if len(known) > 1:
        axes.scatter(known, [height] * len(known), color=color, s=7, alpha=0.45, linewidths=0)
    if mean.interval is not None:
        axes.hlines(height, *mean.interval, color=color, linewidth=2, alpha=0.6, zorder=2)
    axes.plot([mean.mean], [height], color=color, marker=marker, markersize=7, zorder=3)
