"""DataLoader workers that are forked while a job talks to the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from tests.building import content_message, opening_message
from tests.fork_server import run_trainings

_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


@pytest.mark.parametrize("fork_support", ["0", "1"])
def test_training_continues_when_dataloader_workers_fork_after_attaching(
    server: LocalServer, client: AdvisorClient, fork_support: str
) -> None:
    client.register_profile(f"forking-{fork_support}", content_message(_NAMES))
    (printed,) = run_trainings(
        [("tests.forking_job", server.address, f"forking-{fork_support}")],
        timeout_s=200,
        environment={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": fork_support},
    )
    result = json.loads(printed.splitlines()[-1])
    assert (result["seen"], result["failures"]) == (96, 0)
    assert result["answered_step"] > 4  # answers came after the second epoch's workers were forked


_FORKING_CLIENT = """
import os, sys
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
opening = pb.RunOpening.FromString(bytes.fromhex(sys.argv[2]))
with AdvisorClient(sys.argv[1]) as client:
    session = client.open_run(opening)
    for step in range(5):
        session.recommend(pb.Measurement(step=step, unit_rates=[1.0] * len(opening.layout.groups)))
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:  # a child may use the client too
        print(client.status().version)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    session.close()
"""


def test_forks_beside_an_open_stream_print_nothing(
    server: LocalServer, client: AdvisorClient
) -> None:
    client.register_profile("quiet-forks", content_message(_NAMES))
    opening = opening_message("projects/default/profiles/quiet-forks", _NAMES)
    done = subprocess.run(
        [sys.executable, "-c", _FORKING_CLIENT, server.address, opening.SerializeToString().hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"},
    )
    assert done.stderr == ""
    assert done.stdout.strip() == client.status().version
