"""Prints the suggestions per second of OSS Vizier's service; needs only google-vizier[jax].

Each suggestion has floats by random search and is followed by a measurement. The service stores in
memory.
"""

from __future__ import annotations

import time
from functools import partial

from vizier.service import clients, servers
from vizier.service import pyvizier as vz

from benchmarks.rpc.callers import Workload, calls_per_second


def _suggest(parameters: int, number: int, until: float) -> int:
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
    return done


def main() -> None:
    """Measure and print one number."""
    workload = Workload.from_command_line()
    server = servers.DefaultVizierServer(database_url=None)
    clients.environment_variables.server_endpoint = server.endpoint
    suggest = partial(_suggest, workload.parameters)
    print(calls_per_second(suggest, workload))  # noqa: T201 - the output of the script


if __name__ == "__main__":
    main()
