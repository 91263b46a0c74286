"""The pictures of transfer: sweeps, how far the optimum moves, regret; the same every time."""

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
from benchmarks.report.transfer import axes_of, name_of, slug, spoken

_COLUMNS = 3
_LINES = {
    "base": (BASE, "s", "--", "base"),
    "plain": (PLAIN, "x", "-", "scaled, plain"),
    "advised": (ADVISED, "o", "-", "scaled, advised"),
}
_MOST_ROOM = 8.0  # above the least loss, in units of how far losses near the optima differ
_LINEAR_NATS = 0.05  # regrets below it are drawn on a linear scale
_AIM_REGRET = 0.02  # nats


def draw(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the pictures of transfer as SVG, by file name.

    Args:
        figures: Content of ``transfer.json``.
    """
    cases = figures["cases"]
    with _look():
        drawn = {"transfer-shift.svg": _shift(cases), "transfer-regret.svg": _regret(cases)}
        for axis in axes_of(cases):
            some = [case for case in cases if case["axis"] == axis]
            drawn[f"transfer-sweeps-{slug(axis)}.svg"] = _sweeps(some)
        return {name: _svg(figure) for name, figure in drawn.items()}


@contextmanager
def _look() -> Iterator[None]:
    with mpl.rc_context({
        **STYLE,
        "font.size": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.titlesize": 10,
        "svg.fonttype": "path",  # the same with whatever fonts the reader has
        "svg.hashsalt": "fslr-advisor",  # names of parts do not change from run to run
    }):
        yield


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _sweeps(cases: Sequence[Mapping[str, Any]]) -> Figure:
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
        _sweep(axes, case)
    for axes in list(grid.flat)[len(cases) :]:
        axes.remove()
    for row in grid:
        row[0].set_ylabel("loss, nats")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"scaled: {spoken(cases[0]['axis'])}", fontsize=11)
    return figure


def _sweep(axes: Axes, case: Mapping[str, Any]) -> None:
    curves = []
    for model, (colour, marker, style, label) in _LINES.items():
        rates, mean, low, high = _curve((case.get("sweeps") or {}).get(model, {}))
        if not rates:
            continue
        axes.fill_between(rates, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            rates,
            mean,
            color=colour,
            marker=marker,
            markersize=5,
            linestyle=style,
            label=label,
            zorder=4 if model == "plain" else 3,  # crosses show on dots, dots would hide crosses
        )
        curves.append(dict(zip(rates, mean, strict=True)))
    rate = case.get("base_learning_rate")
    octave = None if rate is None else math.log2(rate)
    if octave is not None:
        axes.axvline(octave, color="black", linewidth=0.8, linestyle=":", zorder=0)
    if curves:
        axes.set_ylim(_limits(curves, octave))
    axes.set_title(f"{case['model']}, {case['optimizer']}")
    axes.set_xlabel("learning rate, as a power of 2")
    axes.xaxis.set_major_locator(MultipleLocator(2))


def _limits(curves: Sequence[Mapping[float, float]], octave: float | None) -> tuple[float, float]:
    """Return the least and largest loss to show: optima, and what the base's best rate gives.

    Curves rise steeply above their optima; of that, as much is shown as leaves room for the rest.
    """
    least = min(min(curve.values()) for curve in curves)
    near = []
    for curve in curves:
        best = min(curve, key=lambda power: curve[power])
        near += [loss for power, loss in curve.items() if best - 2 <= power <= best]
    room = max(near) - least or 1.0
    at_base = [curve[octave] for curve in curves if octave is not None and octave in curve]
    top = min(max([*near, *at_base]), least + _MOST_ROOM * room)
    return least - 0.1 * (top - least), top + 0.25 * (top - least)


def _curve(
    sweep: Mapping[str, Sequence[float | None]],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return log2 of the rates at which no seed diverged, with mean, least and largest loss."""
    points = []
    for rate, losses in sweep.items():
        values = [math.nan if loss is None else loss for loss in losses]
        if values and all(map(math.isfinite, values)):
            points.append((
                math.log2(float(rate)),
                sum(values) / len(values),
                min(values),
                max(values),
            ))
    if not points:
        return [], [], [], []
    rates, mean, low, high = (list(column) for column in zip(*sorted(points), strict=True))
    return rates, mean, low, high


def _by_case(cases: Sequence[Mapping[str, Any]]) -> tuple[Figure, Axes]:
    """Return axes with a row for each case."""
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(cases) + 1.4), layout="constrained")
    axes.set_yticks(range(len(cases)), [name_of(case) for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    return figure, axes


def _pairs(axes: Axes, plain: Sequence[float | None], advised: Sequence[float | None]) -> None:
    """Draw a row's plain and advised figures with a line between them."""
    one, other = (np.array(values, dtype=float) for values in (plain, advised))
    rows = np.arange(len(one))
    axes.hlines(rows, one, other, color=BASE, linewidth=1, zorder=2)
    axes.scatter(one, rows, color=PLAIN, marker="x", s=55, label="plain", zorder=4)
    axes.scatter(other, rows, color=ADVISED, marker="o", s=35, label="advised", zorder=3)
    _missing(axes, one, "plain", PLAIN, "right")
    _missing(axes, other, "advised", ADVISED, "left")


def _missing(
    axes: Axes, values: NDArray[np.float64], label: str, colour: str, side: Literal["left", "right"]
) -> None:
    """Say in words of which rows there is no finite figure."""
    for row in np.flatnonzero(~np.isfinite(values)).tolist():
        axes.text(
            1.0 if side == "right" else 0.0,
            row,
            f" {label} diverged ",
            transform=axes.get_yaxis_transform(),
            color=colour,
            fontsize=9,
            horizontalalignment=side,
            verticalalignment="center",
        )


def _shift(cases: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _by_case(cases)
    axes.axvspan(-1, 1, color=ADVISED, alpha=0.1, linewidth=0, label="within one octave")
    _pairs(axes, [case["shift_plain"] for case in cases], [case["shift_advised"] for case in cases])
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.set_xlabel("octaves from the base's best learning rate to the scaled model's")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _regret(cases: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _by_case(cases)
    plain = [
        None
        if case["loss_plain"] is None or case["loss_best_plain"] is None
        else case["loss_plain"] - case["loss_best_plain"]
        for case in cases
    ]
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(
        _AIM_REGRET, color="black", linewidth=0.8, linestyle=":", label=f"{_AIM_REGRET} nats"
    )
    _pairs(axes, plain, [case["regret"] for case in cases])
    axes.set_xscale("symlog", linthresh=_LINEAR_NATS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("nats above the best of a full sweep of the plain model, without any search")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
