"""Backups and restores of the embedded Redis and of an external one."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis

from advisor.local.server import LocalServer
from advisor.store import backup
from advisor.store.backup import BackupError, write_backup
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import AdvisorClient, ProfileNotFoundError, VersionNotFoundError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_pb2
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.redis_servers import RedisServer
from tests.waiting import eventually


def restore(archive: Path, data_dir: Path) -> None:
    """Restore a backup as docs/how-to/back-up.md describes."""
    data_dir.mkdir(mode=0o700)
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", data_dir], check=True)


@contextmanager
def served(store: RedisServer) -> Iterator[AdvisorClient]:
    with (
        LocalServer(None, "--redis-url", store.url) as service,
        AdvisorClient(service.address) as client,
    ):
        yield client


def labeled(rate: float) -> profile_pb2.ProfileContent:
    return content_message(rate=rate, labels={"team": "text"})


def fill(client: AdvisorClient) -> None:
    for rate in (1.0, 2.0):
        client.register_profile("gpt", labeled(rate))
    client.set_alias("gpt@1", "prod")
    client.set_policy("team", policy_pb2.Policy(max_multiplier=8))
    opening = opening_message("projects/default/profiles/gpt@prod", run="projects/default/runs/r")
    client.recommend_once(opening, pb.Measurement(step=3, unit_rates=[1, 1, 1, 1]))
    assert eventually(lambda: list(client.list_runs()))
    client.report_run_metrics("r", 3, {"auc": 0.5})


def everything(client: AdvisorClient) -> list[object]:
    return [
        *(client.get_profile(f"gpt@{suffix}") for suffix in ("1", "2", "prod")),
        list(client.list_profiles(label_filter="labels.team=text")),
        *client.list_policies(),
        *client.list_audit_events(),
        *client.list_runs(),
        *client.get_run_history("r"),
        *client.list_run_metrics("r"),
    ]


def test_a_backup_of_a_running_service_restores_everything(tmp_path: Path) -> None:
    archive = tmp_path / "advisor.tar"
    with LocalServer(tmp_path / "data") as service, AdvisorClient(service.address) as client:
        fill(client)
        before = everything(client)
        result = Cli(service.address, "default").run(
            "backup", str(archive), "--data-dir", str(tmp_path / "data"), env={"COLUMNS": "40"}
        )
        assert f"wrote {archive}" in result.output  # on one line, for copying
        client.register_profile("gpt", content_message(rate=3))
        client.register_profile("later", content_message())
    assert archive.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.new")) == []

    restore(archive, tmp_path / "restored")
    with LocalServer(tmp_path / "restored") as service, AdvisorClient(service.address) as client:
        assert everything(client) == before
        # Writes after the backup are gone, and their version numbers are assigned again.
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            client.get_profile("later")
        with pytest.raises(VersionNotFoundError, match="3"):
            client.get_profile("gpt@3")
        again = client.register_profile("gpt", content_message(rate=4))
        assert (again.profile.name, again.created) == ("projects/default/profiles/gpt@3", True)
        assert not client.register_profile("gpt", labeled(2.0)).created


def test_a_backup_of_a_stopped_service_restores_everything(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "data") as service, AdvisorClient(service.address) as client:
        fill(client)
        before = everything(client)
    with (tmp_path / "advisor.tar").open("wb") as file:
        assert write_backup(tmp_path / "data", file) > 0
    restore(tmp_path / "advisor.tar", tmp_path / "restored")
    with LocalServer(tmp_path / "restored") as service, AdvisorClient(service.address) as client:
        assert everything(client) == before


def test_a_backup_during_rewrites_has_all_acknowledged_writes(tmp_path: Path) -> None:
    """Back up while a client writes and Redis keeps rewriting the append-only file."""
    stop = threading.Event()
    acknowledged = [0]
    lowest, archives = [], [tmp_path / f"{i}.tar" for i in range(6)]

    with EmbeddedRedis(tmp_path / "data") as server, redis.Redis.from_url(server.url) as admin:

        def count() -> None:
            with redis.Redis.from_url(server.url) as client:
                while not stop.is_set():
                    # One atomic step changes both keys: a restore must never hold only one change.
                    client.eval("redis.call('INCR', 'a'); redis.call('INCR', 'b')", 0)
                    acknowledged[0] += 1

        def rewrite() -> int:
            with suppress(redis.ResponseError):  # a rewrite is running already
                admin.bgrewriteaof()
            return int(admin.info("persistence")["aof_rewrites"])

        writer = threading.Thread(target=count)
        writer.start()
        try:
            for i, archive in enumerate(archives):
                eventually(lambda i=i: rewrite() > i)  # type: ignore[misc]
                rewrite()  # start the next one
                lowest.append(acknowledged[0])
                with archive.open("wb") as file:
                    write_backup(tmp_path / "data", file)
        finally:
            stop.set()
            writer.join()

    for archive, least in zip(archives, lowest, strict=True):
        restored = tmp_path / archive.stem
        restore(archive, restored)
        with EmbeddedRedis(restored) as server, redis.Redis.from_url(server.url) as client:
            a, b = (int(value or 0) for value in client.mget("a", "b"))
            assert a == b
            assert a >= least


def test_a_backup_restarts_if_a_rewrite_removes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest changes after it is read and before its files are opened."""
    with EmbeddedRedis(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        rewritten: list[bytes] = []

        def names(manifest: bytes) -> list[str]:
            if not rewritten:
                client.bgrewriteaof()
                eventually(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
                folder = tmp_path / "data" / "appendonlydir"
                eventually(lambda: len(list(folder.iterdir())) == 3)  # the old ones are gone
            rewritten.append(manifest)
            return [line.decode().split()[1] for line in manifest.splitlines()]

        monkeypatch.setattr(backup, "_names", names)
        with (tmp_path / "b.tar").open("wb") as file:
            write_backup(tmp_path / "data", file)
    assert len(rewritten) == 2
    restore(tmp_path / "b.tar", tmp_path / "restored")
    with EmbeddedRedis(tmp_path / "restored") as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_files_that_a_rewrite_replaced_are_left_out(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    (manifest,) = (tmp_path / "data" / "appendonlydir").glob("*.manifest")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + b"file appendonly.aof.0.incr.aof seq 0 type h\n")
    with (tmp_path / "b.tar").open("wb") as file:
        write_backup(tmp_path / "data", file)
    with tarfile.open(tmp_path / "b.tar") as archive:
        stored = archive.extractfile("appendonlydir/appendonly.aof.manifest")
        assert stored is not None
        assert stored.read() == whole


def test_a_backup_without_data_fails_and_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(BackupError, match=r"appendonlydir cannot be read .*give the service's"),
        (tmp_path / "b.tar").open("wb") as file,
    ):
        write_backup(tmp_path, file)
    cli = Cli("127.0.0.1:1", "default")
    archive = tmp_path / "advisor.tar"
    result = cli.run("backup", str(archive), "--data-dir", str(tmp_path), ok=False)
    assert "back up that Redis" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]


def test_read_errors_of_the_data_and_write_errors_of_the_archive_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedRedis(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    cli = Cli("127.0.0.1:1", "default")
    arguments = ("--data-dir", str(tmp_path / "data"))
    opened = backup._open_files

    def broken(folder: Path, stack: ExitStack) -> tuple[bytes, list[Any]]:
        manifest, files = opened(folder, stack)
        return manifest, [stack.enter_context(Broken(file.name)) for file in files]

    monkeypatch.setattr(backup, "_open_files", broken)
    result = cli.run("backup", str(tmp_path / "b.tar"), *arguments, ok=False)
    assert re.search(r"appendonlydir/\S+ cannot be read \(Input/output error\)", result.output)
    assert "cannot be written" not in result.output
    monkeypatch.undo()
    result = cli.run("backup", str(tmp_path / "no" / "b.tar"), *arguments, ok=False)
    assert "b.tar cannot be written: No such file or directory" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


class Broken(io.FileIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1) -> NoReturn:  # noqa: ARG002 - inherited signature
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_existing_file_is_replaced_only_if_asked(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data"):
        pass
    archive = tmp_path / "advisor.tar"
    archive.write_text("the only backup")
    cli = Cli("127.0.0.1:1", "default")
    arguments = ("backup", str(archive), "--data-dir", str(tmp_path / "data"))
    result = cli.run(*arguments, ok=False)
    assert f"{archive} exists; choose a different file, or replace it with" in result.output
    assert archive.read_text() == "the only backup"
    cli.run(*arguments, "--overwrite")
    assert tarfile.is_tarfile(archive)


def test_the_default_data_directory_is_named(tmp_path: Path) -> None:
    data = tmp_path / "fslr-advisor"
    with EmbeddedRedis(data):
        pass
    cli = Cli("127.0.0.1:1", "default")
    environment = {"XDG_DATA_HOME": str(tmp_path), "ADVISOR_DATA_DIR": None}
    named = f"reading {data}, the default data directory; --data-dir names a different one"
    result = cli.run("backup", str(tmp_path / "advisor.tar"), env=environment)
    assert named in result.stderr
    assert named not in result.stdout
    printed = cli.run("backup", "-", env=environment)
    assert named in printed.stderr
    assert tarfile.is_tarfile(io.BytesIO(printed.stdout_bytes))
    arguments = ("--data-dir", str(data), "--overwrite")
    result = cli.run("backup", str(tmp_path / "advisor.tar"), *arguments)
    assert "reading" not in result.output


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_a_backup_to_a_directory_is_refused(tmp_path: Path, name: str) -> None:
    with EmbeddedRedis(tmp_path / "data"):
        pass
    cli = Cli("127.0.0.1:1", "default")
    result = cli.run("backup", name, "--data-dir", str(tmp_path / "data"), ok=False)
    assert f"{name} cannot be written: it is a directory; choose a different file" in result.output


def test_a_snapshot_is_restored_before_append_only_files_are_enabled(
    tmp_path: Path,
) -> None:
    """The steps of docs/how-to/back-up.md, and the pitfall that they avoid."""
    with RedisServer(tmp_path / "old") as server, server.client() as admin:
        with served(server) as client:
            fill(client)
            before = everything(client)
        admin.save()
    for name in ("trap", "new"):
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "old" / "dump.rdb", tmp_path / name)

    with RedisServer(tmp_path / "trap") as server, server.client() as admin:
        assert (
            admin.dbsize() == 0
        )  # with appendonly yes from the start, Redis would ignore the snapshot

    with RedisServer(tmp_path / "new", "--appendonly", "no") as server, server.client() as admin:
        assert admin.dbsize() > 0
        admin.config_set("appendonly", "yes")
        eventually(lambda: admin.info("persistence")["aof_rewrite_in_progress"] == 0)
        assert admin.info("persistence")["aof_last_bgrewrite_status"] == "ok"
    with RedisServer(tmp_path / "new") as server, served(server) as client:
        assert everything(client) == before
