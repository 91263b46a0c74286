"""How rows of recipes are written for people."""

from __future__ import annotations

from advisor.policy.ratios import Powers
from advisor.recipes.recipe import Row


def selection_text(row: Row) -> str:
    """Return which groups a row is for, such as ``hidden, expert; residual output``."""
    words = [", ".join(kind.value for kind in row.kinds) or "all"]
    for name, flag in (("residual output", row.residual_output), ("in block", row.in_block)):
        if flag is not None:
            words.append(name if flag else f"not {name}")
    if row.optimizers:
        words.append(f"by {', '.join(row.optimizers)}")
    return "; ".join(words)


def powers_text(powers: Powers | None) -> str:
    """Return a product of powers, such as ``fan_in^-1 depth^-0.5``; None: empty."""
    if powers is None:
        return ""
    return " ".join(
        ratio.value if exponent == 1 else f"{ratio.value}^{exponent:g}"
        for ratio, exponent in powers.exponents
    )
