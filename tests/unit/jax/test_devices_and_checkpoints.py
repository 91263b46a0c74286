"""Several devices, and checkpoints of orbax."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from advisor.local.in_process import InProcessAdvisor
from fslr import AttachError
from tests.unit.jax.nets import batches, train_step_of
from tests.unit.jax.trainings import PARAMS, advised_tx, advisor, assert_same, attaching, train
from tests.unit.jax.two_processes import run

_ROOT = Path(__file__).parents[3]


@pytest.mark.compatibility("jax.sharding", "advised")
def test_sharded_parameters_and_batches_train_and_are_measured_as_on_one_device() -> None:
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.jax.sharded_training"],
        cwd=_ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    single, sharded = json.loads(done.stdout)
    assert (single["shards"], sharded["shards"]) == (1, 4)
    for found in (single, sharded):
        assert found["failures"] == 0
        assert found["multipliers"] == 2.0
        assert found["compiled"][-1] == found["compiled"][1]  # new multipliers compile nothing
    np.testing.assert_allclose(sharded["unit_rates"], single["unit_rates"], rtol=1e-3)
    np.testing.assert_allclose(sharded["kernel"], single["kernel"], rtol=1e-3, atol=1e-5)


@pytest.mark.compatibility("JAX", "several processes", "record")
def test_two_processes_train_as_one_and_the_first_talks_to_the_advisor() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.jax.two_processes", str(port), str(rank)],
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    single = run(lambda array, _: array, InProcessAdvisor)
    try:
        ends = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ends
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ends)
    assert (first.pop("has_answer"), second.pop("has_answer")) == (True, False)
    assert first["refusal"] == second["refusal"] == "the profile base does not exist"
    assert first == second  # the multipliers of each step, too
    assert first["failures"] == single["failures"] == 0
    # Answers come in the background, several steps after their measurement.
    changes = [a != b for a, b in itertools.pairwise(first["in_force"])]
    assert changes.count(True) >= 2
    assert changes.count(False) >= 4
    assert len(set(first["multipliers"])) > 1
    for name in ("points", "multipliers", "bias"):
        np.testing.assert_allclose(first[name], single[name], rtol=1e-3, atol=1e-6)


@pytest.mark.compatibility("JAX", "resume")
def test_a_training_resumes_from_an_orbax_checkpoint_as_if_it_had_not_stopped(
    tmp_path: Path,
) -> None:
    tx = advised_tx()
    data = batches(6)
    whole = train(tx, attaching(advisor(interval=2)), steps=6)
    train_step = train_step_of(tx)

    def trained(params: Any, opt_state: Any, attachment: Any, part: Any) -> tuple[Any, Any]:
        step = attachment.wrap(train_step)
        for batch in part:
            params, opt_state, _ = step(params, opt_state, batch)
        return params, opt_state

    params, opt_state = PARAMS, tx.init(PARAMS)
    first = attaching(advisor(interval=2))(params, opt_state)
    params, opt_state = trained(params, opt_state, first, data[:3])
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        arrays = ocp.args.StandardSave({"params": params, "opt_state": opt_state})
        advice = ocp.args.JsonSave(first.state_dict())
        manager.save(3, args=ocp.args.Composite(arrays=arrays, advice=advice))
        manager.wait_until_finished()

        like = {"params": PARAMS, "opt_state": tx.init(PARAMS)}
        restored = manager.restore(
            3,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like), advice=ocp.args.JsonRestore()
            ),
        )
    params, opt_state = restored["arrays"]["params"], restored["arrays"]["opt_state"]
    second = attaching(advisor(interval=2))(params, opt_state)
    second.load_state_dict(restored["advice"])
    params, opt_state = trained(params, opt_state, second, data[3:])
    assert_same(params, whole.params)
    assert second.state_dict() == whole.attached.state_dict()


def test_a_checkpoint_of_a_recorder_is_refused_by_an_attachment() -> None:
    attachment = attaching(advisor())(PARAMS, advised_tx().init(PARAMS))
    with pytest.raises(AttachError, match="has no entry 'loop'"):
        attachment.load_state_dict({"run": {}, "meter": {}})
