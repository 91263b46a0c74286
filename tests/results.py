"""Result files in the format of the benchmarks, with made-up numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.transfer.methods import DEFAULT
from benchmarks.transfer.results import document, with_figures

PROVENANCE: dict[str, Any] = {
    "command": "python -m benchmarks transfer",
    "commit": "0" * 40,
    "date": "2026-01-02T03:04:05+00:00",
    "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 24, "accelerator": None},
    "versions": {"python": "3.12.1", "torch": "2.13.0+cpu", "fslr-advisor": "0.1.0"},
    "threads": 2,
}


def sweep(best: float, best_loss: float, *, seeds: int = 3) -> dict[str, list[float | None]]:
    """Return losses around a best learning rate of ``2**best``; far above it, training diverges."""
    losses: dict[str, list[float | None]] = {}
    for power in range(-11, -2):
        distance = power - best
        loss = best_loss + 0.03 * distance**2 + (0.2 * distance**2 if distance > 1 else 0)
        spread = [0.01 * math.sin(7 * seed + power) for seed in range(seeds)]
        losses[repr(2.0**power)] = [None if distance > 4 else loss + each for each in spread]
    return losses


def case(
    axis: str,
    model: str = "char GPT",
    optimizer: str = "Adam",
    *,
    plain: float = -3.0,
    advised: float = 0.0,
    gain: float = 0.02,
    method: str = DEFAULT,
) -> dict[str, Any]:
    """Return the records of a case whose best learning rate moves by ``plain`` and ``advised``.

    Returns:
        ``base``, the record of the base, and ``methods``, those of the standard method and of
        ``method``.
    """
    of_case = {
        "axis": axis,
        "model": model,
        "optimizer": optimizer,
        "base": "width 32, 2 blocks",
        "big": "width 256, 2 blocks",
        "base_steps": 150,
        "steps": 150,
        "seeds": [0, 1, 2],
        "weight_decay": None,
    }
    base = {**of_case, "seconds": {"sweep": 9.0}, "sweep": sweep(-6, 2.3)}
    standard, ours = (
        {
            **of_case,
            "method": name,
            "seconds": {"sweep": search, "run": run},
            "unanswered": 0,
            "sweep": losses,
        }
        for name, search, run, losses in (
            ("standard", 90.0, 15.0, sweep(-6 + plain, 2.0)),
            (method, 99.0, 18.0, sweep(-6 + advised, 2.0 - gain)),
        )
    )
    methods = [with_figures(record, base, standard) for record in (standard, ours)]
    return {"base": base, "methods": methods}


def transfer(cases: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the content of ``transfer.json``.

    Args:
        cases: Cases, as :func:`case` returns them; None for some of each kind.
    """
    cases = cases or [
        case("width", plain=-3, gain=0.004),
        case("width", "ResMLP", plain=-2),
        case("width", "pre-norm", "AdamW", plain=-2, gain=0.01),
        case("width", "post-norm", "SGD", plain=1, advised=0.8),
        case("depth", plain=-2, gain=0.08),
        case("depth", "ResMLP", "Muon", plain=-1, advised=-2, gain=-0.1),
        case("width_depth", plain=-5, advised=0),
        case("lora_rank", plain=0, gain=0),
    ]
    bases = [each["base"] for each in cases]
    records = [record for each in cases for record in each["methods"]]
    return {**document(bases, records, PROVENANCE), "processes": 2}


def ablations() -> dict[str, Any]:
    """Return the content of ``ablations.json``."""
    rows = [
        {
            "setting": str(every),
            "role": "default" if every == 100 else "other",
            "shift": 0,
            "regret": regret,
            "cases": {"width res_mlp Adam": {"regrets": [regret - 0.01, regret + 0.01]}},
            "extra_cost_percent": c,
            "seeds": 3,
        }
        for every, regret, c in ((25, 0.001, 8.0), (100, 0.002, 1.9), (400, 0.05, 0.5))
    ]
    question = {
        "question": "How often?",
        "rows": rows,
        "default": "100",
    }
    return {"ablations": [question], **PROVENANCE}


def ideas() -> dict[str, Any]:
    """Return the content of ``ideas.json``."""
    idea = {
        "name": "total rate",
        "regret_with": 0.01,
        "regret_without": 0.012,
        "standard_error": 0.003,
        "chance": 0.6,
        "diverged": 0,
        "wins": False,
        "status": "not in the policy",
        "cases": {"width res_mlp Adam": {"with": 0.01, "without": 0.012}},
    }
    return {"ideas": [idea], **PROVENANCE}


def practice() -> dict[str, Any]:
    """Return the content of ``practice.json``."""
    row = {
        "recipe": "gpt2-tied",
        "seeds": [0, 1, 2],
        "base": 2.0,
        "plain_same_lr": 2.25,
        "best_plain": 1.63,
        "advised": 1.7,
        "regret": 0.07,
        "worst_seed": 0.1,
        "max_multiplier": 2.5,
        "min_multiplier": 0.125,
        "harmed": False,
        "noise": {"regret": 0.03, "to_plain_same_lr": 0.01, "to_base": 0.02},
        "learning_rate": 2.0**-6,
        "best_plain_learning_rate": 2.0**-8,
        "at_edge": [],
        "losses": {
            "base": {"0.015625": [2.0, 1.9, 2.1]},
            "plain": {"0.015625": [2.2, None, 2.3]},
            "advised": [1.7, 1.6, 1.8],
        },
        "failures": 0,
        "seconds": 300.0,
        "definition": {"base": {"width": 24, "blocks": 2}, "octaves_above": 0},
    }
    harmed = {**row, "recipe": "post-norm", "harmed": True, "advised": None, "regret": None}
    return {
        "rows": [row, {**harmed, "worst_seed": None}],
        "median_regret": None,
        "worst_regret": None,
        "harmed": 1,
        "processes": 2,
        **PROVENANCE,
    }


def frameworks() -> dict[str, Any]:
    """Return the content of ``frameworks.json``."""
    return {
        "torch_jax_rate_gap": 2.34e-6,
        "rmse_torch": 0.1,
        "rmse_jax": 0.11,
        "abs_log_bias_jax": 0.0123,
        "rmse_ratio": 1.1,
        "recompiles": 0,
        "probe_cost_jax": 0.912,
        "probe_costs_jax": {"16 x 64": 0.85, "1024 x 1": 0.912},
        "measurements": 50,
        "blocks": 6,
        "width": 64,
        "timed_width": 128,
        "cross_framework": {"plain": 2.5, "advised": 2.25},
        **PROVENANCE,
    }


def write(folder: Path, **files: dict[str, Any]) -> Path:
    """Write result files into a folder, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figures in files.items():
        (folder / f"{name}.json").write_text(json.dumps(figures), "utf-8")
    return folder


def web() -> dict[str, Any]:
    """Return figures of the web page."""
    return {
        **PROVENANCE,
        "groups": 10_000,
        "points": 1_000,
        "first_view_ms": 812.4,
        "bytes": 61_200,
        "draw_ms_10k_groups": 8.2,
        "read_s": 9.1,
        "web_mib_large_run": 170.2,
        "sse_clients": 200,
        "sse_events_per_s": 950.0,
        "web_mib_with_pages": 140.0,
        "web_mib_without_pages": 96.0,
        "streams": 1_000,
        "rpc_per_s_without_pages": 5_000.0,
        "rpc_per_s_with_pages": 4_700.0,
        "rpc_ratio": 0.94,
        "rpc_spread": [0.91, 0.99],
        "p99_ratio": 1.1,
        "p99_spread": [1.0, 1.2],
    }
