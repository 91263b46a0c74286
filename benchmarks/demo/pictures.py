"""The pictures of the demo: loss curves, the rate of each layer, and multipliers."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.demo.experiment import DemoResult
from benchmarks.palette import ADVISED, BASE, PLAIN, STYLE
from fslr.advisor.v1 import run_service_pb2

_SMOOTHED_STEPS = 10


def draw_all(result: DemoResult, width: int, folder: Path) -> list[Path]:
    """Draw all pictures into a folder and return their paths.

    Args:
        result: The results of the demo.
        width: Width of the big model.
        folder: The folder.
    """
    with mpl.rc_context(STYLE):
        return [
            _losses(result, width, folder / "losses.png"),
            _rates(result, folder / "rates.png"),
            _multipliers(result, folder / "multipliers.png"),
        ]


def _smoothed(losses: list[float]) -> NDArray[np.float64]:
    """Return the mean of each step's loss and those of the few steps before it."""
    sums = np.cumsum(losses)
    sums[_SMOOTHED_STEPS:] -= sums[:-_SMOOTHED_STEPS].copy()
    return sums / np.minimum(np.arange(1, len(losses) + 1), _SMOOTHED_STEPS)


def _losses(result: DemoResult, width: int, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for training, label, color in (
        (result.base, "base (where the learning rate was tuned)", BASE),
        (result.plain, f"width {width}, plain", PLAIN),
        (result.advised, f"width {width}, advised", ADVISED),
    ):
        axes.plot(
            _smoothed(training.losses),
            color=color,
            label=f"{label}: validation {training.validation_loss:.2f}",
        )
    top = float(np.percentile(_smoothed(result.plain.losses), 95))
    axes.set_ylim(top=max(top, result.base.losses[0]) * 1.05)
    axes.set(
        xlabel="optimizer step",
        ylabel=f"training loss, nats per character\n(mean of {_SMOOTHED_STEPS} steps)",
        title=f"The learning rate {result.learning_rate:g}, tuned only on the base",
    )
    axes.legend()
    return _saved(figure, path)


def _rates(result: DemoResult, path: Path) -> Path:
    """Draw the median rate of each group over the run: base, plain and advised.

    The advised rates are those of the measured steps with the multipliers in force, which came from
    the previous measurement. The first step was rescaled by its own recommendation.
    """
    learning_rate = result.learning_rate
    base = np.array([point.unit_rates for point in result.content.points]) * learning_rate
    plain = np.array([e.measurement.unit_rates for e in result.plain_events]) * learning_rate
    advised = np.array([e.measurement.unit_rates for e in result.advised_events]) * learning_rate
    first, *later = result.advised_events
    advised *= np.array([
        first.recommendation.multipliers,
        *(e.measurement.multipliers for e in later),
    ])
    names = [group.name for group in result.content.layout.groups]
    rows = np.arange(len(names))
    figure, axes = plt.subplots(figsize=(7, 0.22 * len(names) + 1.3), layout="constrained")
    for rates, label, color, marker in (
        (base, "base (reference)", BASE, "|"),
        (plain, "plain", PLAIN, "x"),
        (advised, "advised", ADVISED, "."),
    ):
        size = 130 if marker == "|" else 45
        axes.scatter(
            np.median(rates, axis=0),
            rows,
            color=color,
            marker=marker,
            s=size,
            label=label,
            zorder=3,
        )
    axes.set(
        xscale="log",
        xlabel="rate: RMS output change of one step, logits (median over the run)",
        title="How far a step of each layer moves the outputs",
    )
    axes.set_yticks(rows, names, fontsize=7)
    axes.invert_yaxis()
    axes.legend()
    return _saved(figure, path)


def _multipliers(result: DemoResult, path: Path) -> Path:
    events: list[run_service_pb2.RunEvent] = result.advised_events
    steps = [event.measurement.step for event in events]
    values = np.log2([event.recommendation.multipliers for event in events])
    names = [group.name for group in result.content.layout.groups]
    reach = max(1.0, float(np.abs(values).max()))
    figure, axes = plt.subplots(figsize=(7, 0.22 * len(names) + 1.3), layout="constrained")
    axes.grid(visible=False)
    image = axes.imshow(values.T, aspect="auto", cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.set(xlabel="optimizer step of the measurement", title="Recommended multipliers")
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("log2 of the multiplier (-1: half the scheduled learning rate)")
    return _saved(figure, path)


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    plt.close(figure)
    return path
