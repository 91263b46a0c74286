"""The service as a process: start, stop and crash."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from advisor.local.server import LocalServer, LocalServerError
from fslr import AdvisorClient, FslrError
from tests.building import content_message
from tests.waiting import eventually


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
    return [int(child) for child in listed.split()]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_acknowledged_profiles_survive_a_kill_of_service_and_redis(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    data = tmp_path / "data"
    with LocalServer(data) as server:

        def write(writer: int) -> None:
            with AdvisorClient(server.address, deadline_s=2) as client:
                for i in range(10_000):
                    content = content_message(rate=1 + writer + i / 10_000)
                    try:
                        answer = client.register_profile(f"writer-{writer}", content)
                    except FslrError:
                        return
                    acknowledged[answer.profile.name] = answer.profile.digest

        writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for writer in writers:
            writer.start()
        eventually(lambda: len(acknowledged) > 100)
        (redis_pid,) = children(server.pid)
        os.kill(redis_pid, signal.SIGKILL)
        os.kill(server.pid, signal.SIGKILL)
        for writer in writers:
            writer.join(30)
    assert len(acknowledged) > 100
    with LocalServer(data) as server, AdvisorClient(server.address) as client:
        for name, digest in acknowledged.items():
            profile = client.get_profile(name).profile
            assert (profile.name, profile.digest) == (name, digest)
        # Registering the same content after the crash creates no second version.
        first = content_message(rate=1)
        assert not client.register_profile("writer-0", first).created


def test_redis_dies_with_a_killed_service(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "data") as server:
        (redis_pid,) = children(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: has_ended(redis_pid))


def test_a_killed_redis_is_restarted_with_its_data(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "data") as server, AdvisorClient(server.address) as client:
        client.register_profile("gpt", content_message())
        (redis_pid,) = children(server.pid)
        os.kill(redis_pid, signal.SIGKILL)

        def recovered() -> bool:
            try:
                return client.get_profile("gpt").profile.version == 1
            except FslrError:
                return False

        assert eventually(recovered)
        assert "the embedded Redis died and was restarted" in eventually(server.log)


def test_a_local_server_stops_with_the_process_that_started_it() -> None:
    code = (
        "import time; from advisor.local.server import LocalServer; "
        "s = LocalServer().__enter__(); print(s.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        (redis_pid,) = children(pid)
        parent.kill()
        parent.wait()
    eventually(lambda: has_ended(pid) and has_ended(redis_pid))


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_cleanly(tmp_path: Path, stop_signal: signal.Signals) -> None:
    with LocalServer(tmp_path / "data") as server, AdvisorClient(server.address) as client:
        client.register_profile("gpt", content_message())
        pid = server.pid
        os.kill(pid, stop_signal)
        eventually(lambda: has_ended(pid))
        assert "stopping" in server.log()
        assert "Traceback" not in server.log()
    with LocalServer(tmp_path / "data") as server, AdvisorClient(server.address) as client:
        assert client.get_profile("gpt").profile.version == 1


def test_the_error_for_a_taken_port_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with (
            pytest.raises(
                LocalServerError, match=rf"cannot listen on 127\.0\.0\.1:{port}: the port"
            ),
            LocalServer(tmp_path / "data", "--port", str(port)),
        ):
            pass


def test_the_error_for_an_unreachable_redis_names_its_url() -> None:
    with (
        pytest.raises(LocalServerError, match=r"redis://127\.0\.0\.1:1 cannot be used: .*embedded"),
        LocalServer(None, "--redis-url", "redis://127.0.0.1:1"),
    ):
        pass


def test_a_data_directory_in_use_is_refused(tmp_path: Path) -> None:
    with (
        LocalServer(tmp_path / "data"),
        pytest.raises(LocalServerError, match=r"is in use by another advisor; stop that one"),
        LocalServer(tmp_path / "data"),
    ):
        pass


def test_listening_beyond_loopback_must_be_allowed_explicitly(tmp_path: Path) -> None:
    with (
        pytest.raises(LocalServerError, match=r"0\.0\.0\.0 can be reached from other machines"),
        LocalServer(tmp_path / "data", "--host", "0.0.0.0"),
    ):
        pass
    with LocalServer(tmp_path / "data", "--host", "0.0.0.0", "--allow-insecure") as server:
        assert server.address.startswith("0.0.0.0:")


@pytest.mark.parametrize(
    ("name", "why"), [("no/file", "No such file or directory"), (".", "it is a directory")]
)
def test_the_error_for_an_unwritable_address_file_names_it(
    tmp_path: Path, name: str, why: str
) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "advisor", "serve", "--port", "0"),
            *("--data-dir", str(tmp_path), "--address-file", name),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 1
    assert f"{name} cannot be written: {why}" in ran.stderr.replace("\n", "")
    assert "Traceback" not in ran.stderr


def test_health_and_reflection_answer(server: LocalServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        states = health_pb2_grpc.HealthStub(channel)
        for service in ("", "fslr.advisor.v1.AdvisorService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert states.Check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflection.ServerReflectionInfo(iter([request]), timeout=5)
        names = {service.name for service in answer.list_services_response.service}
        assert {f"fslr.advisor.v1.{n}Service" for n in ("Advisor", "Profile", "Run")} <= names
