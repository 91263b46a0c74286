"""The benchmark of what measuring adds to a training."""

from __future__ import annotations

from dataclasses import asdict

import torch

from benchmarks.overhead.measuring import measure_overhead
from benchmarks.report.measuring_tables import overhead
from benchmarks.workloads import char_gpt

_STEPS = 104


def test_a_control_shows_the_noise_of_the_comparison() -> None:
    workload = char_gpt(width=16, blocks=1, examples=4, context=4, learning_rate=2.0**-9)
    parameters, costs, control = measure_overhead(workload, _STEPS, device=torch.device("cpu"))
    # The first step and step 100; 40 first steps.
    assert [cost.measurements for cost in costs.values()] == [2, 40]
    for found in (*costs.values(), control):
        assert found.stepping_ms_low <= found.stepping_ms <= found.stepping_ms_high
    named = {name: asdict(cost) for name, cost in costs.items()}
    figures = {"parameters": parameters, "steps": _STEPS, "device": "a CPU", **named}
    older = overhead(figures)
    text = overhead({**figures, "control": asdict(control)})
    assert "none, a second time" in text
    assert f"a second plain training {control.stepping_ms:+.2f} ms" in text
    assert older == text[: len(older)]
