"""The service compared with its peers, on the same work: Python clients in threads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.rpc.callers import Workload, calls_per_second
from benchmarks.rpc.payload import measurements, opening
from fslr import AdvisorClient

PEERS = {"optuna": "optuna_asks", "vizier": "vizier_suggestions"}
"""The scripts in ``benchmarks.rpc.peers``, by name of the peer."""

_ROOT = Path(__file__).parents[2]
_PARAMETERS = 100
_GRACE_S = 120.0  # for the start and the end of a peer


def recommendations_per_second(address: str, workload: Workload) -> float:
    """Return the recommendations per second of training jobs that each have their own client.

    Args:
        address: Address of the service.
        workload: The number of jobs and the duration.
    """
    data = measurements(workload.parameters)

    def train(number: int, until: float) -> int:
        with AdvisorClient(address) as client:
            session = client.open_run(opening(f"peer-{number}", workload.parameters))
            done = 0
            while time.monotonic() < until:
                session.recommend(data[done % len(data)])
                done += 1
            session.close()
            return done

    return calls_per_second(train, workload)


def compare_with_peers(
    address: str, pythons: Mapping[str, str], *, callers: int, seconds: float
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compare the service with each peer.

    Args:
        address: Address of the service.
        pythons: The interpreter that a peer is installed in, by the peer's name. Default: this one.
        callers: Number of concurrent training jobs.
        seconds: Duration.

    Returns:
        The throughput relative to each peer (None if it did not run), and the reasons of those.
    """
    workload = Workload(callers, _PARAMETERS, seconds)
    ratios: dict[str, float | None] = {}
    missing = {}
    for name, script in PEERS.items():
        python = pythons.get(name, sys.executable)
        command = [python, "-m", f"benchmarks.rpc.peers.{script}", *workload.options]
        before = recommendations_per_second(address, workload)
        try:
            shown = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                timeout=seconds + _GRACE_S,
                cwd=_ROOT,
            ).stdout
            peer_per_second = float(shown.split()[-1])
        except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
            ratios[name] = None
            message = str(getattr(error, "stderr", None) or error).strip().splitlines()
            missing[f"peers.{name}"] = message[-1] if message else type(error).__name__
            continue
        after = recommendations_per_second(address, workload)
        ratios[name] = (before + after) / 2 / peer_per_second
    return ratios, missing
