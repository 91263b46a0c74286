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
    """Run a job, and return the printed result of each rank."""
    port = str(free_port())
    ranks = range(1 if kind == "plain" else 2)
    commands = [("tests.distributed_job", kind, str(rank), port) for rank in ranks]
    printed = run_trainings(commands, timeout_s=_TIMEOUT_S)
    return [json.loads(output.splitlines()[-1]) for output in printed]


@pytest.mark.compatibility("DistributedDataParallel", "record", "several processes")
@pytest.mark.compatibility("FSDP2", "record", "several processes")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_rates_match_those_of_a_single_process(kind: str) -> None:
    (single,), ranks = job("plain"), job(kind)
    # Both estimates use the same total number of rows.
    error = math.sqrt(2) * 0.5 * math.sqrt(2 / (_EXAMPLES * _PROBES))
    for rate, expected in zip(ranks[0]["rates"], single["rates"], strict=True):
        assert abs(math.log(rate / expected)) < 5 * 1.5 * error
    assert not ranks[0]["slow"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["weight_rms", "update_rms"])
def test_rms_are_those_of_whole_tensors(kind: str, name: str) -> None:
    (single,), ranks = job("plain"), job(kind)
    assert ranks[0][name] == ranks[1][name]
    assert ranks[0][name] == pytest.approx(single[name], rel=1e-3)
    assert all(rms > 0 for rms in single["update_rms"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_initial_weights_are_those_of_whole_tensors(kind: str) -> None:
    (single,), ranks = job("plain"), job(kind)
    assert ranks[0]["initial_rms"] == ranks[1]["initial_rms"]
    assert ranks[0]["initial_rms"] == pytest.approx(single["initial_rms"], rel=1e-6)


@pytest.mark.compatibility("DistributedDataParallel", "advised", "several processes")
@pytest.mark.compatibility("FSDP2", "advised", "several processes")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_ranks_apply_the_answer_of_rank_0_in_the_same_step(kind: str) -> None:
    first, second = job(kind)  # rank 1 has an advisor that raises on every call
    assert first["rates"] == second["rates"]
    assert first["multipliers"] == second["multipliers"]
    assert first["weights"] == second["weights"]
    assert (first["failures"], second["failures"]) == (0, 0)
    assert len({tuple(multipliers) for multipliers in first["multipliers"]}) > 3


def test_sharded_ranks_with_different_batch_sizes_make_the_same_number_of_passes() -> None:
    first, second = job("uneven")
    for name, slow in (("by example", []), ("in sums", ["0.bias", "0.weight"])):
        assert first[name]["rates"] == second[name]["rates"]
        assert len(first[name]["rates"]) == 4
        assert all(rates[-1] > 0 for rates in first[name]["rates"])
        assert (first[name]["failures"], second[name]["failures"]) == (0, 0)
        assert first[name]["slow"] == slow


@pytest.mark.parametrize("kind", ["failing", "fsdp-failing", "unwrapped"])
def test_a_failure_on_one_rank_reaches_all_ranks(kind: str) -> None:
    first, second = job(kind)
    if kind == "unwrapped":
        assert "2 processes, and the model is not wrapped" in first["error"] == second["error"]
        return
    assert first["failures"] == 1
    assert second["failures"] >= 1  # more if it noticed the failure before the step
    assert first["multipliers"] == second["multipliers"]
    assert first["weights"] == second["weights"]
