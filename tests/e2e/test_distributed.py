"""Two processes train one model, with DistributedDataParallel and with FSDP2, over gloo."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest

from tests.fork_server import run_trainings
from tests.redis_servers import free_port

_TIMEOUT_S = 250
_PROBES = 100
_EXAMPLES = 8


@cache
def job(kind: str) -> list[dict[str, Any]]:
    """Return what each rank of a job printed."""
    port = str(free_port())
    ranks = range(1 if kind == "plain" else 2)
    commands = [("tests.distributed_job", kind, str(rank), port) for rank in ranks]
    printed = run_trainings(commands, timeout_s=_TIMEOUT_S)
    return [json.loads(output.splitlines()[-1]) for output in printed]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_rates_are_those_of_one_process(kind: str) -> None:
    (alone,), ranks = job("plain"), job(kind)
    # Both are estimates from as many rows in all.
    error = math.sqrt(2) * 0.5 * math.sqrt(2 / (_EXAMPLES * _PROBES))
    for mine, single in zip(ranks[0]["rates"], alone["rates"], strict=True):
        assert abs(math.log(mine / single)) < 5 * 1.5 * error
    assert not ranks[0]["slow"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_ranks_act_on_the_first_one_s_answer_in_the_same_step(kind: str) -> None:
    first, second = job(kind)  # the second rank's advisor raises when it is asked
    assert first["rates"] == second["rates"]
    assert first["multipliers"] == second["multipliers"]
    assert first["weights"] == second["weights"]
    assert (first["failures"], second["failures"]) == (0, 0)
    assert len({tuple(multipliers) for multipliers in first["multipliers"]}) > 3


def test_ranks_of_a_sharded_model_with_other_numbers_of_examples_make_as_many_passes() -> None:
    first, second = job("uneven")
    for name, slow in (("by example", []), ("in sums", ["0.bias", "0.weight"])):
        assert first[name]["rates"] == second[name]["rates"]
        assert len(first[name]["rates"]) == 4
        assert all(rates[-1] > 0 for rates in first[name]["rates"])
        assert (first[name]["failures"], second[name]["failures"]) == (0, 0)
        assert first[name]["slow"] == slow


@pytest.mark.parametrize("kind", ["failing", "fsdp-failing", "unwrapped"])
def test_trouble_on_one_rank_is_known_to_all(kind: str) -> None:
    first, second = job(kind)
    if kind == "unwrapped":
        assert "2 processes, and the model is not wrapped" in first["error"] == second["error"]
        return
    assert first["failures"] == 1
    assert second["failures"] >= 1  # more, if it knew before the step
    assert first["multipliers"] == second["multipliers"]
    assert first["weights"] == second["weights"]
