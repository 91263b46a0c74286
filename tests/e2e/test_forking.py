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

_FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


def _environment(fork_support: str) -> dict[str, str]:
    """Return the environment of a job, in which gRPC logs what it would log to a user."""
    kept = {k: v for k, v in os.environ.items() if k not in {"GRPC_VERBOSITY", _FORK_SUPPORT}}
    return kept if fork_support == "unset" else {**kept, _FORK_SUPPORT: fork_support}


@pytest.mark.parametrize("fork_support", ["unset", "0", "1"])
def test_training_continues_when_dataloader_workers_fork_after_attaching(
    server: LocalServer, client: AdvisorClient, fork_support: str
) -> None:
    client.register_profile(f"forking-{fork_support}", content_message(_NAMES))
    (printed,) = run_trainings(
        [("tests.forking_job", server.address, f"forking-{fork_support}")],
        timeout_s=200,
        environment=_environment(fork_support),
        is_quiet=True,
    )
    result = json.loads(printed.splitlines()[-1])
    assert (result["seen"], result["failures"]) == (96, 0)
    assert result["answered_step"] > 4  # answers came after the second epoch's workers were forked


_FORKING_CLIENT = """
import os, sys
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
opening = pb.RunOpening.FromString(bytes.fromhex(sys.argv[2]))
parent = os.getpid()
with AdvisorClient(sys.argv[1]) as client:
    session = client.open_run(opening)
    for step in range(5):
        session.recommend(pb.Measurement(step=step, unit_rates=[1.0] * len(opening.layout.groups)))
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    # A child may use the client too, unless gRPC may not support forks.
    pid = 0 if os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0" else os.fork()
    if pid == 0:
        print(client.status().version)
        sys.stdout.flush()
    if pid == 0 and os.getpid() != parent:
        os._exit(0)
    if pid:
        os.waitpid(pid, 0)
    session.close()
"""


@pytest.mark.parametrize("fork_support", ["unset", "0", "1"])
def test_forks_beside_an_open_stream_print_nothing(
    server: LocalServer, client: AdvisorClient, fork_support: str
) -> None:
    client.register_profile("quiet-forks", content_message(_NAMES))
    opening = opening_message("projects/default/profiles/quiet-forks", _NAMES)
    done = subprocess.run(
        [sys.executable, "-c", _FORKING_CLIENT, server.address, opening.SerializeToString().hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=_environment(fork_support),
    )
    assert done.stderr == ""
    assert done.stdout.strip() == client.status().version
