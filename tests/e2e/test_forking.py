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
child_calls = sys.argv[3] == "calls"
with AdvisorClient(sys.argv[1]) as client:
    session = client.open_run(opening)
    for step in range(5):
        session.recommend(pb.Measurement(step=step, unit_rates=[1.0] * len(opening.layout.groups)))
        pid = os.fork()
        if pid == 0 and child_calls:
            # Rarely, gRPC logs that a child dropped what it had opened before the fork.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(1, client.status().version.encode() + b"\\n")
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    session.close()
"""


def _run_with_forks(address: str, *, child_calls: bool, fork_support: str) -> tuple[str, str]:
    """Return what a client printed, and logged, that forked five times beside its open stream."""
    opening = opening_message("projects/default/profiles/quiet-forks", _NAMES)
    sent = opening.SerializeToString().hex()
    done = subprocess.run(
        [sys.executable, "-c", _FORKING_CLIENT, address, sent, "calls" if child_calls else "ends"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=_environment(fork_support),
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("fork_support", ["unset", "0", "1"])
def test_forks_beside_an_open_stream_print_nothing(
    server: LocalServer, client: AdvisorClient, fork_support: str
) -> None:
    client.register_profile("quiet-forks", content_message(_NAMES))
    printed = _run_with_forks(server.address, child_calls=False, fork_support=fork_support)
    assert printed == ("", "")


def test_a_forked_child_may_call_the_service_beside_its_parents_open_stream(
    server: LocalServer, client: AdvisorClient
) -> None:
    client.register_profile("quiet-forks", content_message(_NAMES))
    printed, logged = _run_with_forks(server.address, child_calls=True, fork_support="unset")
    # gRPC supports calls in a child as far as it can: about 1 in 600 ends in an abort of its own.
    assert len(printed.split()) >= 4
    assert set(printed.split()) == {client.status().version}
    assert logged == ""
