"""The colors of the charts stay apart for readers with a color vision deficiency."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import advisor.web
from advisor.document import svg
from advisor.policy.arrays import Floats

_CSS = (Path(advisor.web.__file__).parent / "static" / "page.css").read_text("utf-8")
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
_VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
}
# Ottosson (2020): linear RGB to Oklab, in which distances are those that people see.
_TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])
_TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])
_MIN_DISTANCE = 0.06  # about three times what is just noticeable


def palette(colors: str) -> dict[str, str]:
    """Return the colors of the series and of what is behind them.

    Args:
        colors: ``light`` and ``dark`` pages, or a ``report``.
    """
    if colors == "report":
        return {str(i): color for i, color in enumerate([*svg.COLORS, svg.REST])}
    light, dark = _CSS.split("@media (prefers-color-scheme: dark)", 1)
    text = light if colors == "light" else dark.partition("\n}")[0]
    return dict(re.findall(r"--(c\d|card): (#[0-9a-f]{6})", text))


def seen(color: str, vision: str) -> Floats:
    """Return how a color looks with normal or impaired color vision, in Oklab coordinates."""
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    found: Floats = _TO_LAB @ np.cbrt(_TO_CONES @ np.clip(_VISIONS[vision] @ linear, 0, 1))
    return found


@pytest.mark.parametrize("colors", ["light", "dark", "report"])
@pytest.mark.parametrize("vision", _VISIONS)
def test_no_two_series_have_colors_that_look_alike(colors: str, vision: str) -> None:
    found = palette(colors)
    assert len(found) == 9
    distances = {
        (a, b): round(float(np.linalg.norm(seen(found[a], vision) - seen(found[b], vision))), 3)
        for a, b in combinations(found, 2)
    }
    close = {pair: distance for pair, distance in distances.items() if distance < _MIN_DISTANCE}
    assert close == {}
