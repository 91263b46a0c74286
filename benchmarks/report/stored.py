"""The stored figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""The content of one file."""


def load_figures(folder: Path) -> dict[str, Figures]:
    """Return the content of each file of figures, by file name without suffix.

    Args:
        folder: The folder of the files.
    """
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }
