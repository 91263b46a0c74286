"""``python -m advisor.recipes.shipped`` writes ``tables.json`` from the YAML files."""

from __future__ import annotations

from pathlib import Path

from advisor.recipes.shipped import TABLES
from advisor.recipes.shipped.tables import tables_text

if __name__ == "__main__":
    (Path(__file__).parent / TABLES).write_text(tables_text(), "utf-8")
