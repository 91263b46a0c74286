"""A copy of an embedded Redis's data, taken while it runs.

Its append-only file is a base, which never changes, and what was written since, which only grows;
a manifest names them. So whatever was acknowledged before the manifest is read is in the files that
it names. A rewrite puts new ones in their place, under new names, and then removes the old ones:
one that is open by then can be read to its end all the same, and where one is gone, there is a new
manifest to begin again with.
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
_ATTEMPTS = 100  # a rewrite ends between two of them now and then, never this often
_HISTORY = "h"  # files that a rewrite replaced and that are about to go


class BackupError(Exception):
    """The data cannot be copied."""


class _Source:
    """A file to copy, whose failures are told from those of the archive.

    Args:
        file: The file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            BackupError: They cannot be read.
        """
        try:
            data = self._file.read(size)
        except OSError as error:
            raise BackupError(
                f"{self._file.name} cannot be read ({error.strerror}); look at its disk"
            ) from error
        if len(data) < size:
            raise BackupError(f"{self._file.name} became shorter meanwhile; try again")
        return data


def write_backup(data_dir: Path, target: BinaryIO) -> int:
    """Write a tar archive of the data, to be unpacked into an empty data directory.

    All that was acknowledged before the call is in it; of what is written meanwhile, the begin.

    Args:
        data_dir: The embedded Redis's data directory; in use or not.
        target: Where the archive goes; needs no seeking.

    Returns:
        Size of the data, in bytes.

    Raises:
        BackupError: The directory holds no data, or they cannot be read.
    """
    folder = data_dir / _FOLDER
    with contextlib.ExitStack() as opened:
        try:
            manifest, files = _opened(folder, opened)
        except OSError as error:
            raise BackupError(
                f"{folder} cannot be read ({error.strerror}); name the service's --data-dir; a "
                "service with --redis-url has none: back up that Redis"
            ) from error
        sizes = [os.fstat(file.fileno()).st_size for file in files]
        with tarfile.open(fileobj=target, mode="w|") as archive:
            _add(archive, _FOLDER, None, 0)
            for file, size in zip(files, sizes, strict=True):
                _add(archive, f"{_FOLDER}/{Path(file.name).name}", _Source(file), size)
            _add(archive, f"{_FOLDER}/{_MANIFEST}", io.BytesIO(manifest), len(manifest))
    return sum(sizes)


def _opened(folder: Path, opened: contextlib.ExitStack) -> tuple[bytes, list[BinaryIO]]:
    """Return the manifest, and the files that it names, open.

    Raises:
        BackupError: It changes all the time.
        OSError: Something cannot be read, or is not there.
    """
    path = folder / _MANIFEST
    for _ in range(_ATTEMPTS):
        manifest = path.read_bytes()
        with contextlib.ExitStack() as attempt:
            try:
                files = [attempt.enter_context((folder / n).open("rb")) for n in _named(manifest)]
            except OSError:
                if path.read_bytes() == manifest:
                    raise
                continue
            opened.push(attempt.pop_all())
            return b"".join(_current(manifest)), [*files]
    raise BackupError(f"{path} changes all the time; try again")


def _current(manifest: bytes) -> Iterator[bytes]:
    """Yield the lines of the files that count: ``file NAME seq NUMBER type LETTER``."""
    for line in manifest.splitlines(keepends=True):
        words = line.decode().split()
        if dict(zip(words[::2], words[1::2], strict=False)).get("type") != _HISTORY:
            yield line


def _named(manifest: bytes) -> Iterator[str]:
    for line in _current(manifest):
        yield line.decode().split()[1]


def _add(archive: tarfile.TarFile, name: str, file: _Source | io.BytesIO | None, size: int) -> None:
    """Add a file, or without one a directory, that nobody but its owner may read."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = (tarfile.DIRTYPE, 0o700) if file is None else (tarfile.REGTYPE, 0o600)
    entry.size = size
    archive.addfile(entry, file)
