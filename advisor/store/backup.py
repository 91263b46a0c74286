"""Backs up an embedded Redis's data while it runs.

The append-only file consists of a base file, which never changes, and incremental files, which only
grow. A manifest lists them. So every write that was acknowledged before the manifest is read is in
the listed files. A rewrite creates files with new names and then removes the old ones. A removed
file that is open already can still be read to its end. If a file is removed before it is opened,
the manifest has changed, and the copy starts again from the new one.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_MAX_ATTEMPTS = 100  # an attempt fails if a rewrite ends during it, which is rare
_HISTORY = "h"  # the type of files that a rewrite replaced and that will be removed


class BackupError(Exception):
    """The data cannot be backed up."""


class _SourceFile:
    """A file to copy, whose read errors are distinct from errors of the archive.

    Args:
        file: The file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            BackupError: The file cannot be read, or has become shorter.
        """
        try:
            data = self._file.read(size)
        except OSError as error:
            raise BackupError(
                f"{self._file.name} cannot be read ({error.strerror}); check its disk"
            ) from error
        if len(data) < size:
            raise BackupError(f"{self._file.name} became shorter during the backup; try again")
        return data


def write_backup(data_dir: Path, target: BinaryIO) -> int:
    """Write a tar archive of the data, which can be unpacked into an empty data directory.

    The archive has all writes that were acknowledged before the call. Of the writes during the
    call it may have the first ones.

    Args:
        data_dir: The embedded Redis's data directory, in use or not.
        target: The file for the archive; it need not support seeking.

    Returns:
        The size of the data, in bytes.

    Raises:
        BackupError: The directory has no data, or the data cannot be read.
    """
    folder = data_dir / _FOLDER
    with contextlib.ExitStack() as opened:
        try:
            manifest, files = _open_files(folder, opened)
        except OSError as error:
            raise BackupError(
                f"{folder} cannot be read ({error.strerror}); give the service's --data-dir (a "
                "service with --redis-url has none: back up that Redis instead)"
            ) from error
        sizes = [os.fstat(file.fileno()).st_size for file in files]
        with tarfile.open(fileobj=target, mode="w|") as archive:
            _add(archive, _FOLDER, None, 0)
            for file, size in zip(files, sizes, strict=True):
                _add(archive, f"{_FOLDER}/{Path(file.name).name}", _SourceFile(file), size)
            _add(archive, f"{_FOLDER}/{_MANIFEST}", io.BytesIO(manifest), len(manifest))
    return sum(sizes)


def _open_files(folder: Path, opened: contextlib.ExitStack) -> tuple[bytes, list[BinaryIO]]:
    """Open the files that the manifest lists; return the manifest and the files.

    Raises:
        BackupError: The manifest has changed at every attempt.
        OSError: The manifest or a file cannot be read, or does not exist.
    """
    path = folder / _MANIFEST
    for _ in range(_MAX_ATTEMPTS):
        manifest = path.read_bytes()
        with contextlib.ExitStack() as attempt:
            try:
                files = [attempt.enter_context((folder / n).open("rb")) for n in _names(manifest)]
            except OSError:
                if path.read_bytes() == manifest:
                    raise
                continue
            opened.push(attempt.pop_all())
            return b"".join(_current_lines(manifest)), [*files]
    raise BackupError(f"{path} keeps changing; try again")


def _current_lines(manifest: bytes) -> Iterator[bytes]:
    """Yield the lines of files in use: ``file NAME seq NUMBER type LETTER``."""
    for line in manifest.splitlines(keepends=True):
        words = line.decode().split()
        if dict(zip(words[::2], words[1::2], strict=False)).get("type") != _HISTORY:
            yield line


def _names(manifest: bytes) -> Iterator[str]:
    for line in _current_lines(manifest):
        yield line.decode().split()[1]


def _add(
    archive: tarfile.TarFile, name: str, file: _SourceFile | io.BytesIO | None, size: int
) -> None:
    """Add a file, or a directory if the file is None, that only its owner may read."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = (tarfile.DIRTYPE, 0o700) if file is None else (tarfile.REGTYPE, 0o600)
    entry.size = size
    archive.addfile(entry, file)
