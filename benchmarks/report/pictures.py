"""The pictures of the transfer benchmark: sweeps, shifts of the optimum, regrets.

The same figures always give the same files.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullLocator
from numpy.typing import NDArray

from benchmarks.palette import ADVISED, BASE, PLAIN, STYLE
from benchmarks.report.axis_picture import axis_picture
from benchmarks.report.methods import spoken
from benchmarks.report.octave_cases import axes_of, octave_cases
from benchmarks.report.stored import Figures
from benchmarks.report.transfer import AIM_REGRET, name_of, slug

_COLUMNS = 3
_LINES = {
    "base": (BASE, "s", "--", "base"),
    "plain": (PLAIN, "x", "-", "scaled, plain"),
    "advised": (ADVISED, "o", "-", "scaled, advised"),
}
_MAX_RANGE = 8.0  # of the losses shown, relative to the range of losses near the optima
_LINEAR_NATS = 0.05  # regrets below it are drawn on a linear scale


def draw_pictures(stored: Mapping[str, Figures]) -> dict[str, str]:
    """Return the pictures as SVG, by file name; none if no transfer figures are stored.

    Args:
        stored: The stored figures, as :func:`load_figures` returns them.
    """
    if "transfer" not in stored:
        return {}
    records, cases = stored["transfer"]["cases"], octave_cases(stored["transfer"])
    with _picture_style():
        figures = {}
        if records:
            figures["transfer-methods.svg"] = axis_picture(records)
        if cases:
            figures["transfer-shift.svg"] = _shift_picture(cases)
            figures["transfer-regret.svg"] = _regret_picture(cases)
        for axis in axes_of(cases):
            of_axis = [case for case in cases if case["axis"] == axis]
            figures[f"transfer-sweeps-{slug(axis)}.svg"] = _sweeps_picture(of_axis)
        return {name: _svg(figure) for name, figure in figures.items()}


@contextmanager
def _picture_style() -> Iterator[None]:
    with mpl.rc_context({
        **STYLE,
        "font.size": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.titlesize": 10,
        "svg.fonttype": "path",  # looks the same whatever fonts the reader has
        "svg.hashsalt": "fslr-advisor",  # identifiers are the same in each run
    }):
        yield


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _sweeps_picture(cases: Sequence[Mapping[str, Any]]) -> Figure:
    rows = math.ceil(len(cases) / _COLUMNS)
    columns = min(_COLUMNS, len(cases))
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(max(2.9 * columns, 4.6), 2.5 * rows + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for axes, case in zip(grid.flat, cases, strict=False):
        _draw_sweep(axes, case)
    for axes in list(grid.flat)[len(cases) :]:
        axes.remove()
    for row in grid:
        row[0].set_ylabel("loss, nats")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"scaled: {spoken(cases[0]['axis'])}", fontsize=11)
    return figure


def _draw_sweep(axes: Axes, case: Mapping[str, Any]) -> None:
    curves = []
    for model, (color, marker, style, label) in _LINES.items():
        octaves, mean, low, high = _curve(case["sweeps"][model])
        if not octaves:
            continue
        axes.fill_between(octaves, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            octaves,
            mean,
            color=color,
            marker=marker,
            markersize=5,
            linestyle=style,
            label=label,
            zorder=4 if model == "plain" else 3,  # crosses show on dots, dots would hide crosses
        )
        curves.append(dict(zip(octaves, mean, strict=True)))
    learning_rate = case["base_learning_rate"]
    octave = None if learning_rate is None else math.log2(learning_rate)
    if octave is not None:
        axes.axvline(octave, color="black", linewidth=0.8, linestyle=":", zorder=0)
    if curves:
        axes.set_ylim(_loss_limits(curves, octave))
    axes.set_title(f"{case['model']}, {case['optimizer']}")
    axes.set_xlabel("log2 of the learning rate")
    axes.xaxis.set_major_locator(MultipleLocator(2))


def _loss_limits(
    curves: Sequence[Mapping[float, float]], octave: float | None
) -> tuple[float, float]:
    """Return the lowest and highest loss to show.

    The range holds the optima and the losses at the base's best learning rate. Losses far above
    the optima are cut off, so that they do not flatten the rest of the picture.

    Args:
        curves: Mean losses by octave.
        octave: log2 of the base's best learning rate.
    """
    lowest = min(min(curve.values()) for curve in curves)
    near = []
    for curve in curves:
        best = min(curve, key=lambda power: curve[power])
        near += [loss for power, loss in curve.items() if best - 2 <= power <= best]
    room = max(near) - lowest or 1.0
    at_base = [curve[octave] for curve in curves if octave is not None and octave in curve]
    top = min(max([*near, *at_base]), lowest + _MAX_RANGE * room)
    return lowest - 0.1 * (top - lowest), top + 0.25 * (top - lowest)


def _curve(
    sweep: Mapping[str, Sequence[float | None]],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return octaves at which no seed diverged, with the mean, lowest and highest loss of each."""
    points = []
    for learning_rate, losses in sweep.items():
        values = [math.nan if loss is None else loss for loss in losses]
        if values and all(map(math.isfinite, values)):
            points.append((
                math.log2(float(learning_rate)),
                sum(values) / len(values),
                min(values),
                max(values),
            ))
    if not points:
        return [], [], [], []
    octaves, mean, low, high = (list(column) for column in zip(*sorted(points), strict=True))
    return octaves, mean, low, high


def _rows_of_cases(cases: Sequence[Mapping[str, Any]]) -> tuple[Figure, Axes]:
    """Return axes with one row per case."""
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(cases) + 1.4), layout="constrained")
    axes.set_yticks(range(len(cases)), [name_of(case) for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    return figure, axes


def _draw_pairs(axes: Axes, plain: Sequence[float | None], advised: Sequence[float | None]) -> None:
    """Draw the plain and the advised figure of each row, with a line between them."""
    plain_values, advised_values = (np.array(values, dtype=float) for values in (plain, advised))
    rows = np.arange(len(plain_values))
    axes.hlines(rows, plain_values, advised_values, color=BASE, linewidth=1, zorder=2)
    axes.scatter(plain_values, rows, color=PLAIN, marker="x", s=55, label="plain", zorder=4)
    axes.scatter(advised_values, rows, color=ADVISED, marker="o", s=35, label="advised", zorder=3)
    _label_diverged(axes, plain_values, "plain", PLAIN, "right")
    _label_diverged(axes, advised_values, "advised", ADVISED, "left")


def _label_diverged(
    axes: Axes, values: NDArray[np.float64], label: str, color: str, side: Literal["left", "right"]
) -> None:
    """Label the rows that have no finite figure."""
    for row in np.flatnonzero(~np.isfinite(values)).tolist():
        axes.text(
            1.0 if side == "right" else 0.0,
            row,
            f" {label} diverged ",
            transform=axes.get_yaxis_transform(),
            color=color,
            fontsize=9,
            horizontalalignment=side,
            verticalalignment="center",
        )


def _shift_picture(cases: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _rows_of_cases(cases)
    axes.axvspan(-1, 1, color=ADVISED, alpha=0.1, linewidth=0, label="within one octave")
    plain, advised = (
        [case["fitted"][model]["shift"] for case in cases] for model in ("plain", "advised")
    )
    for model, color, offset in (("plain", PLAIN, 0.16), ("advised", ADVISED, -0.16)):
        _draw_intervals(axes, [case["fitted"][model] for case in cases], "shift", color, offset)
    _draw_pairs(axes, plain, advised)
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.set_xlabel("shift of the best learning rate, octaves; lines: 90% intervals")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_intervals(
    axes: Axes, records: Sequence[Mapping[str, Any]], key: str, color: str, offset: float
) -> None:
    """Draw the interval of each row's figure, a little above or below the row."""
    for row, record in enumerate(records):
        interval = record[f"{key}_interval"]
        if interval is not None:
            axes.hlines(row + offset, *interval, color=color, linewidth=1, alpha=0.6, zorder=1)


def _regret_picture(cases: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _rows_of_cases(cases)
    plain, advised = (
        [case["fitted"][model]["regret"] for case in cases] for model in ("plain", "advised")
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(
        AIM_REGRET, color="black", linewidth=0.8, linestyle=":", label=f"aim: {AIM_REGRET} nats"
    )
    _draw_pairs(axes, plain, advised)
    axes.set_xscale("symlog", linthresh=_LINEAR_NATS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("regret of the base's best learning rate, nats")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
