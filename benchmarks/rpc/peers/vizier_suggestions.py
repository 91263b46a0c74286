"""Prints the suggestions per second of OSS Vizier's service; needs only google-vizier[jax].

Each suggestion has floats by random search and is followed by a measurement. The service stores in
memory.
"""

from __future__ import annotations

import argparse
import threading
import time

from vizier.service import clients, servers
from vizier.service import pyvizier as vz


def _ask(number: int, parameters: int, until: float, counts: list[int]) -> None:
    config = vz.StudyConfig(algorithm="RANDOM_SEARCH")
    root = config.search_space.root
    for i in range(parameters):
        root.add_float_param(f"p{i}", 0.001, 1000.0, scale_type=vz.ScaleType.LOG)
    config.metric_information.append(
        vz.MetricInformation("loss", goal=vz.ObjectiveMetricGoal.MINIMIZE)
    )
    study = clients.Study.from_study_config(config, owner="bench", study_id=f"load-{number}")
    done = 0
    while time.monotonic() < until:
        (trial,) = study.suggest(count=1, client_id=str(number))
        trial.complete(vz.Measurement({"loss": 1.0}))
        done += 1
    counts.append(done)


def main() -> None:
    """Measure and print one number."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    server = servers.DefaultVizierServer(database_url=None)
    clients.environment_variables.server_endpoint = server.endpoint
    counts: list[int] = []
    begun = time.monotonic()
    callers = [
        threading.Thread(target=_ask, args=(i, given.parameters, begun + given.seconds, counts))
        for i in range(given.callers)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    print(sum(counts) / (time.monotonic() - begun))  # noqa: T201 - the output of the script


if __name__ == "__main__":
    main()
