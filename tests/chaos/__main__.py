"""``python -m tests.chaos``."""

from __future__ import annotations

import typer

from tests.chaos.main import main

if __name__ == "__main__":
    typer.run(main)
