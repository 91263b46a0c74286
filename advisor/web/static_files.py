"""Scripts, styles and pictures of the page, compressed once and cached by browsers.

Their address has a digest of all of them, so a browser keeps them until they change, and modules
that import each other are always of the same version.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_FOLDER = Path(__file__).parent / "static"
_CURRENT = "public, max-age=31536000, immutable"
_OTHER = "no-cache"  # a browser asks whether it has changed
_DIGEST_CHARACTERS = 12
_METHODS = ("GET", "HEAD")


class StaticFiles:
    """Serves the files of a folder, which are read once.

    Args:
        prefix: The path that the files are served below, such as ``/static``.
        folder: The folder.

    Attributes:
        base: The path of the current version of the files, without a slash at the end.
    """

    def __init__(self, prefix: str = "/static", folder: Path = _FOLDER) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self._files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self._packed = {name: gzip.compress(data, mtime=0) for name, data in self._files.items()}
        self._types = {name: mimetypes.guess_type(name)[0] or "text/plain" for name in self._files}
        digest = hashlib.sha256()
        for name, data in self._files.items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        self._version = digest.hexdigest()[:_DIGEST_CHARACTERS]
        self.base = f"{prefix}/{self._version}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            HTTPException: There is no such file, or the method is neither GET nor HEAD.
        """
        if scope["method"] not in _METHODS:
            raise HTTPException(
                HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(_METHODS)}
            )
        path = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        # The address of an earlier version is that of a page from before an upgrade.
        name = path if path in self._files else path.partition("/")[2]
        if name not in self._files:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        is_current = path == f"{self._version}/{name}"
        answer = self._response(name, Headers(scope=scope), is_current=is_current)
        await answer(scope, receive, send)

    def _response(self, name: str, asked: Headers, *, is_current: bool) -> Response:
        """Return the answer for a file.

        Args:
            name: The file's path in the folder.
            asked: Headers of the request.
            is_current: Whether the address has the digest of the files.
        """
        headers = {
            "cache-control": _CURRENT if is_current else _OTHER,
            "etag": f'"{self._version}"',
            "vary": "accept-encoding",
        }
        if asked.get("if-none-match") == headers["etag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        data, packed = self._files[name], self._packed[name]
        if len(packed) < len(data) and "gzip" in asked.get("accept-encoding", ""):
            data = packed
            headers["content-encoding"] = "gzip"
        return Response(data, headers=headers, media_type=self._types[name])
