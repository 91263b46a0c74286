"""``python -m docs.generator``: build the site into out/docs/site; exit status 1 at any problem."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from docs.generator.links import problems_of
from docs.generator.staging import stage

ROOT = Path(__file__).parents[2]
STAGED = ROOT / "out" / "docs"
SITE = STAGED / "site"


def build() -> list[str]:
    """Build the site and return what is wrong with it."""
    stage(ROOT, STAGED)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=STAGED,
        check=False,
    )
    if built.returncode != 0:
        return [f"zensical build --strict ended with status {built.returncode}"]
    return problems_of(SITE)


if __name__ == "__main__":
    problems = build()
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    print(f"{sum(1 for _ in SITE.rglob('index.html'))} pages: {SITE / 'index.html'}")
