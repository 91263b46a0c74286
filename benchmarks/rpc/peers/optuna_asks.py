"""Prints the trials per second of Optuna's gRPC storage proxy; needs only optuna and grpcio.

Each trial asks for floats by random sampling and reports a value. The proxy stores in memory.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from functools import partial

import optuna

from benchmarks.rpc.callers import Workload, calls_per_second

_START_TIMEOUT_S = 30.0


def _serve(port: int) -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=port)


def _run_trials(port: int, parameters: int, _number: int, until: float) -> int:
    storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler())
    done = 0
    while time.monotonic() < until:
        trial = study.ask()
        for i in range(parameters):
            trial.suggest_float(f"p{i}", 0.001, 1000.0, log=True)
        study.tell(trial, 1.0)
        done += 1
    return done


def _wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def main() -> None:
    """Measure and print one number."""
    workload = Workload.from_command_line()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    server.start()
    _wait_until_listening(port)
    run_trials = partial(_run_trials, port, workload.parameters)
    print(calls_per_second(run_trials, workload))  # noqa: T201 - the output of the script
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
