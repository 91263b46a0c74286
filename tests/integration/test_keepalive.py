"""Clients that ping a quiet connection, as clients of other languages and meshes do."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from types import TracebackType
from typing import Self

from advisor.local.server import LocalServer

_HEADERS, _SETTINGS, _PING, _GOAWAY = 1, 4, 6, 7
_ACK, _END_HEADERS = 1, 4
_ENHANCE_YOUR_CALM = 11


class Http2Connection:
    """An HTTP/2 connection that sends single frames, as a context manager.

    Args:
        address: Address of the service.

    Attributes:
        acknowledged: Number of pings that the service has acknowledged.
        refusal: Error code and debug data with which the service closed the connection.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 10)
        self._received = b""
        self.acknowledged = 0
        self.refusal: tuple[int, bytes] | None = None
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(_SETTINGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _send(self, kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> None:
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        self._socket.sendall(head + payload)

    def open_stream(self) -> None:
        """Open a stream on which neither side sends a message."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "localhost",
            ":path": "/fslr.advisor.v1.AdvisorService/RecommendLR",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        # Literal fields that no table knows (RFC 7541, section 6.2.2).
        block = b"".join(
            b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in field)
            for field in headers.items()
        )
        self._send(_HEADERS, block, flags=_END_HEADERS, stream=1)

    def ping(self) -> None:
        """Send a ping."""
        self._send(_PING, b"12345678")

    def read(self, wait_s: float) -> None:
        """Read frames until the service closes the connection, for at most ``wait_s`` seconds."""
        deadline = time.monotonic() + wait_s
        while self.refusal is None and (left_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                received = self._socket.recv(65_536)
            except TimeoutError:
                return
            assert received, "the service closed the connection without a reason"
            self._received += received
            self._read_frames()

    def _read_frames(self) -> None:
        while len(self._received) >= 9:
            size, kind, flags = struct.unpack(">IBB", b"\0" + self._received[:5])
            if len(self._received) < 9 + size:
                return
            payload, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            self.acknowledged += kind == _PING and bool(flags & _ACK)
            if kind == _GOAWAY:
                self.refusal = struct.unpack(">I", payload[4:8])[0], payload[8:]


def test_pings_keep_a_quiet_stream_and_an_idle_connection(server: LocalServer) -> None:
    pings, interval_s = 5, 0.55  # with gRPC's default limits, the fourth ping is one too many
    with Http2Connection(server.address) as idle, Http2Connection(server.address) as streaming:
        streaming.open_stream()
        for _ in range(pings):
            for connection in (idle, streaming):
                connection.ping()
                connection.read(interval_s / 2)
        for connection in (idle, streaming):
            assert (connection.acknowledged, connection.refusal) == (pings, None)


def test_a_flood_of_pings_is_cut_off(server: LocalServer) -> None:
    with Http2Connection(server.address) as flooding:
        # The service may close the connection before all pings are sent; its reason can be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(10):
                flooding.ping()
        flooding.read(10)
        assert flooding.refusal == (_ENHANCE_YOUR_CALM, b"too_many_pings")
