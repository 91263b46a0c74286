"""Prints the trials per second of Optuna's gRPC storage proxy; needs only optuna and grpcio.

Each trial asks for floats by random sampling and reports a value. The proxy stores in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import threading
import time

import optuna

_START_TIMEOUT_S = 30.0


def _serve(port: int) -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=port)


def _ask(port: int, parameters: int, until: float, counts: list[int]) -> None:
    storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler())
    done = 0
    while time.monotonic() < until:
        trial = study.ask()
        for i in range(parameters):
            trial.suggest_float(f"p{i}", 0.001, 1000.0, log=True)
        study.tell(trial, 1.0)
        done += 1
    counts.append(done)


def main() -> None:
    """Measure and print one number."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    server.start()
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    counts: list[int] = []
    begun = time.monotonic()
    callers = [
        threading.Thread(target=_ask, args=(port, given.parameters, begun + given.seconds, counts))
        for _ in range(given.callers)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    print(sum(counts) / (time.monotonic() - begun))  # noqa: T201 - the output of the script
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
