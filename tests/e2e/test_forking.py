"""DataLoader workers that are forked while a job talks to the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from tests.building import content_message

_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


@pytest.mark.parametrize("fork_support", ["0", "1"])
def test_workers_forked_after_attaching_do_no_harm(
    server: LocalServer, client: AdvisorClient, fork_support: str
) -> None:
    client.register_profile(f"forking-{fork_support}", content_message(_NAMES))
    job = subprocess.run(
        [
            sys.executable, "-W", "ignore", "-m", "tests.forking_job", server.address,
            f"forking-{fork_support}",
        ],
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": fork_support},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr[-2000:]
    result = json.loads(job.stdout.splitlines()[-1])
    assert (result["seen"], result["failures"]) == (96, 0)
    assert result["answered_step"] > 4  # answers came after the second epoch's workers were forked
