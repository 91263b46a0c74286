"""How to install what the base installation does without."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return how to install an extra, such as ``torch``, from an index or from a checkout."""
    return (
        f"pip install 'fslr-advisor[{extra}]', or pip install '.[{extra}]' in a checkout of the "
        "repository"
    )
