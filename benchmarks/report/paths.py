"""Where the stored figures, the pages that show them, and their pictures are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FIGURES: Final = Path("benchmarks/results")
PICTURES: Final = Path("docs/images/results")

README: Final = Path("README.md")
MEASUREMENT: Final = Path("docs/explanation/measurement.md")
POLICY: Final = Path("docs/explanation/policy.md")
RECORDINGS: Final = Path("docs/explanation/recordings.md")
PROMOTION: Final = Path("docs/how-to/register-and-promote.md")
OPTIMIZERS: Final = Path("docs/how-to/which-optimizers-work.md")
METHOD: Final = Path("docs/how-to/choose-a-method.md")
LORA: Final = Path("docs/how-to/transfer-lora-across-ranks.md")
SIZING: Final = Path("docs/how-to/size.md")
SETUPS: Final = Path("benchmarks/practice/setups.py")
RESULTS: Final = Path("docs/explanation/results.md")
BATCH_DECISION: Final = Path("docs/decisions/0014-batches-of-another-size-change-no-rate.md")

PAGES_WITH_BLOCKS: Final = (
    *(README, MEASUREMENT, POLICY, RECORDINGS, PROMOTION, SIZING, OPTIMIZERS, LORA, METHOD),
)
"""The pages that are written by hand but for their blocks of figures."""


def link_from_results(target: Path, anchor: str = "") -> str:
    """Return the address of a file as a link of the results page.

    Args:
        target: The file, relative to the repository.
        anchor: A heading in it.
    """
    relative = Path(os.path.relpath(target, RESULTS.parent)).as_posix()
    return relative + (f"#{anchor}" if anchor else "")
