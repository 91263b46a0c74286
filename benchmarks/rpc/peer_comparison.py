"""The service compared with its peers, on the same work: Python clients in threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.rpc.payload import measurements, opening
from fslr import AdvisorClient

SCRIPTS = {"optuna": "optuna_asks.py", "vizier": "vizier_suggestions.py"}
_PARAMETERS = 100
_GRACE_S = 120.0  # for the start and the end of a peer


def recommendations_per_second(address: str, *, callers: int, seconds: float) -> float:
    """Return the recommendations per second of training jobs that each have their own client.

    Args:
        address: Address of the service.
        callers: Number of concurrent training jobs.
        seconds: Duration.
    """
    data = measurements(_PARAMETERS)
    counts: list[int] = []
    until = time.monotonic() + seconds

    def train(number: int) -> None:
        with AdvisorClient(address) as client:
            session = client.open_run(opening(f"peer-{number}", _PARAMETERS))
            done = 0
            while time.monotonic() < until:
                session.recommend(data[done % len(data)])
                done += 1
            counts.append(done)
            session.close()

    begun = time.monotonic()
    jobs = [threading.Thread(target=train, args=(i,)) for i in range(callers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return sum(counts) / (time.monotonic() - begun)


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
    ratios: dict[str, float | None] = {}
    missing = {}
    for name, script in SCRIPTS.items():
        command = [
            pythons.get(name, sys.executable),
            str(Path(__file__).parent / "peers" / script),
            *("--callers", str(callers)),
            *("--parameters", str(_PARAMETERS)),
            *("--seconds", str(seconds)),
        ]
        before = recommendations_per_second(address, callers=callers, seconds=seconds)
        try:
            shown = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=seconds + _GRACE_S
            ).stdout
            peer_per_second = float(shown.split()[-1])
        except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
            ratios[name] = None
            message = str(getattr(error, "stderr", None) or error).strip().splitlines()
            missing[f"peers.{name}"] = message[-1] if message else type(error).__name__
            continue
        after = recommendations_per_second(address, callers=callers, seconds=seconds)
        ratios[name] = (before + after) / 2 / peer_per_second
    return ratios, missing
