"""Values read from files, and read again after the files change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_Value = TypeVar("_Value")

FileStamp = tuple[tuple[int, int, int, int] | None, ...]


def file_stamp(paths: Sequence[Path]) -> FileStamp:
    """Return a value that differs after a file was written, replaced, removed or made readable."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


class WatchedFiles(Generic[_Value]):
    """A value that follows its files; a failed read leaves the last good value in place.

    Nothing watches in the background: each :meth:`refresh` costs one ``stat`` per file.

    Args:
        paths: The files.
        read: Reads and checks the files; called once at the start and once after each change.

    Raises:
        Exception: Whatever ``read`` raises, if the files cannot be used at the start.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], _Value]) -> None:
        self._paths = tuple(paths)
        self._read = read
        # Taken before the read, so that a write during the read is noticed by the next refresh.
        self._stamp = file_stamp(self._paths)
        self.current = read()

    def refresh(self) -> bool:
        """Read the files again if they changed, and return whether they were read.

        Raises:
            Exception: Whatever ``read`` raises, once per change; ``current`` stays as it was.
        """
        stamp = file_stamp(self._paths)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self.current = self._read()
        return True
