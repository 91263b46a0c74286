"""Several worker processes behind one port: sharing it, restarting, and stopping together."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.request
from pathlib import Path

import grpc
import pytest

from advisor.local.server import LocalServer, LocalServerError
from fslr import AdvisorClient, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc
from tests.building import content_message, opening_message
from tests.waiting import eventually

OPENING = opening_message("projects/default/profiles/gpt", run="projects/default/runs/r")
MEASUREMENT = pb.Measurement(unit_rates=[1.0] * 4)


def workers_of(service: LocalServer) -> set[int]:
    """Return the process IDs of the service's workers."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (process / "stat").read_text(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if (
            status.rsplit(")", 1)[1].split()[1] == str(service.pid)
            and b"advisor.server.worker" in command
        ):
            found.add(int(process.name))
    return found


def port_of(text: str, name: str) -> str:
    found = re.search(rf"{name}=(\d+)", text)
    assert found, text
    return found[1]


def metric_sum(service: LocalServer, metric: str) -> float:
    """Return the value of a metric, summed over its labels."""
    port = port_of(service.log(), "metrics_port")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))


def is_answered(client: AdvisorClient) -> bool:
    try:
        client.recommend_once(OPENING, MEASUREMENT)
    except UnavailableError:
        return False
    return True


def connections(pid: int) -> int:
    files = Path(f"/proc/{pid}/fd").iterdir()
    return sum(str(file.readlink()).startswith("socket:") for file in files)


def test_workers_share_the_port_and_their_metrics_are_summed() -> None:
    with LocalServer(None, "--workers", "2", "--metrics-port", "0") as service:
        workers = workers_of(service)
        assert len(workers) == 2
        idle = {pid: connections(pid) for pid in workers}
        own_connection = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(service.address, own_connection) for _ in range(32)]
        try:
            with AdvisorClient(service.address) as client:
                client.register_profile("gpt", content_message())
            for channel in channels:
                stub = advisor_service_pb2_grpc.AdvisorServiceStub(channel)
                stub.RecommendLROnce(
                    pb.RecommendLRRequest(opening=OPENING, measurement=MEASUREMENT), timeout=10
                )
            assert all(connections(pid) > idle[pid] for pid in workers)
            assert metric_sum(service, "advisor_answers_total") == len(channels)
            assert metric_sum(service, "advisor_ready") == 1
        finally:
            for channel in channels:
                channel.close()


def test_a_worker_that_dies_is_restarted_and_the_run_continues() -> None:
    with (
        LocalServer(None, "--workers", "2") as service,
        AdvisorClient(service.address) as client,
    ):
        client.register_profile("gpt", content_message())
        run = client.open_run(OPENING)
        before = run.recommend(MEASUREMENT).multipliers
        workers = workers_of(service)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(workers_of(service) - workers) == 2)
        eventually(lambda: is_answered(client))
        assert run.recommend(MEASUREMENT).multipliers == before
        run.close()
        assert service.log().count("a worker died and is restarted") == 2


def test_sigterm_stops_all_workers_and_open_runs_get_an_error() -> None:
    with LocalServer(None, "--workers", "2", "--grace-s", "2") as service:
        workers = workers_of(service)
        with AdvisorClient(service.address) as client:
            client.register_profile("gpt", content_message())
            run = client.open_run(OPENING)
            run.recommend(MEASUREMENT)
            os.kill(service.pid, signal.SIGTERM)
            eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
            with pytest.raises(UnavailableError, match=r"no advisor|shutting down"):
                run.recommend(MEASUREMENT)


def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "data", "--workers", "2") as service:
        workers = workers_of(service)
        os.kill(service.pid, signal.SIGKILL)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_the_error_for_a_taken_port_names_it() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        with (
            pytest.raises(LocalServerError, match=f"cannot listen on 127.0.0.1:{port}"),
            LocalServer(None, "--workers", "2", "--port", port),
        ):
            pass
    with LocalServer(None, "--workers", "2") as service:
        port = service.address.rsplit(":", 1)[1]
        for workers in ("1", "2"):
            with (
                pytest.raises(LocalServerError, match="cannot listen on"),
                LocalServer(None, "--workers", workers, "--port", port),
            ):
                pass


def test_an_error_that_keeps_a_worker_from_starting_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(LocalServerError, match=r"TLS files .* cannot be read: No such file"),
        LocalServer(None, "--workers", "2", "--tls-cert", "/no/cert", "--tls-key", "/no/key"),
    ):
        pass
    with (
        pytest.raises(
            LocalServerError, match=r"(?s)error: the Redis at unix://.* omit --redis-url"
        ),
        LocalServer(None, "--workers", "2", "--redis-url", f"unix://{tmp_path}/none"),
    ):
        pass
