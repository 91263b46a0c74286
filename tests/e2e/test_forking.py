"""DataLoader workers that are forked while a job talks to the service."""

from __future__ import annotations

import json
import os

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from tests.building import content_message
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
