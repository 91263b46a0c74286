"""Values that follow their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fslr.client.file_watch import WatchedFiles, file_stamp
from tests.waiting import eventually


def test_a_value_is_read_again_only_after_a_change(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("one")
    reads = 0

    def read() -> str:
        nonlocal reads
        reads += 1
        return path.read_text()

    watched = WatchedFiles([path], read)
    assert not watched.refresh()
    assert (watched.current, reads) == ("one", 1)
    path.write_text("three")
    assert watched.refresh()
    assert (watched.current, reads) == ("three", 2)


def test_a_failed_read_is_reported_once_and_leaves_the_value(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("one")
    watched = WatchedFiles([path], path.read_text)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="value"):
        watched.refresh()
    assert not watched.refresh()
    assert watched.current == "one"
    path.write_text("one")
    assert watched.refresh()


def test_a_write_during_the_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("one")

    def read_and_lose_a_race() -> str:
        text = path.read_text()
        if text == "one":
            path.write_text("three")
        return text

    watched = WatchedFiles([path], read_and_lose_a_race)
    assert watched.current == "one"
    assert watched.refresh()
    assert watched.current == "three"


def test_any_of_several_files_counts_as_a_change(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("x")
    watched = WatchedFiles(paths, lambda: [path.read_text() for path in paths])
    paths[1].write_text("long")
    assert watched.refresh()
    assert watched.current == ["x", "long"]


def test_replaced_files_and_new_permissions_change_the_stamp(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("x")
    other.write_text("y")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    before = file_stamp([path])
    other.replace(path)
    replaced = file_stamp([path])
    assert replaced != before

    def changes() -> bool:
        path.chmod(0o600)
        return file_stamp([path]) != replaced

    assert eventually(changes)  # file systems count time in ticks of some milliseconds
