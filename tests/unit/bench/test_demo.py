"""The demo's second part: the setup of GPT-2."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.demo.gpt2 import GPT2, run_gpt2
from benchmarks.practice import training
from benchmarks.practice.setups import Procedure, Setup, Size
from benchmarks.practice.training import Training


def test_the_setup_is_that_of_gpt_2() -> None:
    architecture, procedure = GPT2.architecture, GPT2.procedure
    assert (architecture.initial, architecture.tied) == ("gpt2", True)
    assert (procedure.optimizer, procedure.schedule) == ("AdamW", "cosine")
    assert (procedure.weight_decay, procedure.clip) == (0.1, 1.0)


def test_it_returns_the_losses_of_base_plain_and_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_VALIDATION_SEQUENCES", 64)
    setup = Setup(
        "tiny", procedure=Procedure(steps=4, context=16), base=Size(16, 1), big=Size(64, 1)
    )
    trained: list[Training] = []
    with ThreadPoolExecutor(1) as pool:
        found = run_gpt2(0, pool, 1, trained.append, setup=setup)
    for name in ("base", "plain", "best_plain", "advised"):
        assert math.isfinite(found[f"{name}_loss"])
    assert found["best_plain_loss"] <= found["plain_loss"]
    assert found["advised_loss"] != found["plain_loss"]
    assert (found["base_width"], found["width"], found["steps"]) == (16, 64, 4)
    assert {each.seed for each in trained} == {0}
