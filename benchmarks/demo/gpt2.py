"""The second part of the demo: the setup of GPT-2, on the trainings of the practice benchmark."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from benchmarks.practice.battery import Battery, plan_row
from benchmarks.practice.figures import record
from benchmarks.practice.setups import Architecture, Procedure, Setup, Size
from benchmarks.practice.store import Store
from benchmarks.practice.training import Training

GPT2 = Setup("gpt2", Architecture(), Procedure(), base=Size(32), big=Size(128))


def run_gpt2(
    seed: int,
    pool: Executor,
    workers: int,
    on_trained: Callable[[Training], None],
    *,
    setup: Setup = GPT2,
) -> dict[str, Any]:
    """Train the setup of GPT-2 on a small and on a big model, and return the figures.

    Args:
        seed: Seed of weights and data.
        pool: Where to train.
        workers: Number of trainings that the pool runs in parallel.
        on_trained: Called after each training.
        setup: The setup.
    """
    (row,) = Battery(Store(), pool, workers, on_trained).run([plan_row(setup, [seed])])
    found = record(row)
    return {
        "base_loss": found["base"],
        "plain_loss": found["plain_same_lr"],
        "best_plain_loss": found["best_plain"],
        "advised_loss": found["advised"],
        "learning_rate": found["learning_rate"],
        "best_plain_learning_rate": found["best_plain_learning_rate"],
        "multiplier_min": found["min_multiplier"],
        "multiplier_max": found["max_multiplier"],
        "base_width": setup.base.width,
        "width": setup.big.width,
        "blocks": setup.big.blocks,
        "steps": setup.procedure.steps,
    }
