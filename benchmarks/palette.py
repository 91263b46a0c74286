"""Colors and style of all pictures; lines also differ in lightness and marker, not only color."""

from __future__ import annotations

from typing import Any, Final

BASE: Final = "#7a7a7a"
PLAIN: Final = "#d1495b"
ADVISED: Final = "#00798c"

STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 130,
    "legend.frameon": False,
}
