"""The service on the work of its peers: through its own Python client, from threads."""

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
_GRACE_S = 120.0


def asks_per_second(address: str, *, callers: int, seconds: float) -> float:
    """Return recommendations a second for as many training jobs, each with a client of its own."""
    data = measurements(_PARAMETERS)
    counts: list[int] = []
    until = time.monotonic() + seconds

    def ask(number: int) -> None:
        with AdvisorClient(address) as client:
            session = client.open_run(opening(f"peer-{number}", _PARAMETERS))
            done = 0
            while time.monotonic() < until:
                session.recommend(data[done % len(data)])
                done += 1
            counts.append(done)
            session.close()

    begun = time.monotonic()
    jobs = [threading.Thread(target=ask, args=(i,)) for i in range(callers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return sum(counts) / (time.monotonic() - begun)


def peers(
    address: str, pythons: Mapping[str, str], *, callers: int, seconds: float
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compare the service with each peer; return the ratios, and why one is missing.

    Args:
        address: The service.
        pythons: The interpreter for a peer, by its name. Default: this one.
        callers: How many training jobs ask at a time.
        seconds: For how long.
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
        before = asks_per_second(address, callers=callers, seconds=seconds)
        try:
            shown = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=seconds + _GRACE_S
            ).stdout
            theirs = float(shown.split()[-1])
        except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
            ratios[name] = None
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            missing[f"peers.{name}"] = said[-1] if said else type(error).__name__
            continue
        after = asks_per_second(address, callers=callers, seconds=seconds)
        ratios[name] = (before + after) / 2 / theirs
    return ratios, missing
