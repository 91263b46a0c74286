"""What to tell the user about weight decay."""

from __future__ import annotations

from typing import Any

from fslr.jax.advice_state import advice_states, knows_decay

_REMEDY = (
    "pass scale_by_advice(weight_decay=..., learning_rate=...) what the optimizer was built with, "
    "or weight_decay=0 if it has none"
)


def kept_warning(opt_state: Any) -> str:
    """Return a warning that the decay cannot be kept apart; empty if it can.

    Args:
        opt_state: The optimizer's state.
    """
    if knows_decay(opt_state):
        return ""
    return (
        "the policy keeps the weight decay of a step (weight_decay: independent), and "
        f"scale_by_advice does not know it, so multipliers scale it; {_REMEDY}"
    )


def scaled_hint(opt_state: Any) -> str:
    """Return a hint that multipliers scale the decay; empty if none is known.

    Args:
        opt_state: The optimizer's state.
    """
    if not any(state.decays is not None for state in advice_states(opt_state)):
        return ""
    return (
        "multipliers scale the weight decay together with the rest of the update, as the policy "
        "says; set weight_decay to independent in the policy to keep the decay of a step what the "
        "optimizer's settings say"
    )


def exclusion_warning(opt_state: Any) -> str:
    """Return a warning that the decay cannot be left out of measurements; empty if it can.

    Args:
        opt_state: The optimizer's state.
    """
    if knows_decay(opt_state):
        return ""
    return (
        "exclude_weight_decay has no effect: no scale_by_advice of the optimizer knows the decay; "
        f"{_REMEDY}"
    )
