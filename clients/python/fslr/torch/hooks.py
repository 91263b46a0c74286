"""Calls a step cycle before and after each step of a PyTorch optimizer."""

from __future__ import annotations

from typing import Any

import torch

from fslr.torch.step_scaler import StepScaler
from fslr.training.step_cycle import StepCycle


class StepHooks:
    """The hooks of an optimizer; the training loop does not change.

    Args:
        optimizer: The optimizer.
        cycle: Is called before and after each step.
        scaler: Holds the optimizer's groups while they are split.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, cycle: StepCycle, scaler: StepScaler
    ) -> None:
        self._scaler = scaler

        def before_step(*_: Any) -> None:
            cycle.before_step()

        def after_step(*_: Any) -> None:
            cycle.after_step()

        def restore(*_: Any) -> None:
            scaler.restore()

        # The step may be compiled, but not what is done around it.
        disable: Any = torch.compiler.disable
        self._handles = [
            optimizer.register_step_pre_hook(disable(before_step)),
            optimizer.register_step_post_hook(disable(after_step)),
            # A step that raised left its groups split, and no hook runs after it.
            optimizer.register_state_dict_pre_hook(restore),
            optimizer.register_load_state_dict_pre_hook(restore),
        ]

    def close(self) -> None:
        """Remove the hooks; the optimizer continues at the scheduled learning rates."""
        for handle in self._handles:
            handle.remove()
        self._scaler.restore()
