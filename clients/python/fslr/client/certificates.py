"""Certificates in PEM files: checked before they are used, read again when they change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fslr.errors import CertificateError

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files hold.

    Attributes:
        ca: The authorities to trust, PEM; None: those of the system.
        pair: The own private key and its certificate with the chain, PEM; None: none.
    """

    ca: bytes | None
    pair: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where certificates are.

    Attributes:
        ca: The authorities to trust; None: those of the system.
        cert: The own certificate with its chain; None: none.
        key: Its private key, not encrypted; given if and only if ``cert`` is.

    Raises:
        CertificateError: A certificate without its key, or the other way round.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Check that certificate and key come together.

        Raises:
            CertificateError: One of them is missing.
        """
        if (self.cert is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.cert is None else ("certificate", "key")
            raise CertificateError(
                f"TLS has a {given}, but no {missing}; name both files or neither"
            )

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> Self | None:
        """Return what ``FSLR_TLS_CA``, ``FSLR_TLS_CERT`` and ``FSLR_TLS_KEY`` name.

        None if none of them is set.

        Raises:
            CertificateError: A certificate without its key, or the other way round.
        """
        names = ("FSLR_TLS_CA", "FSLR_TLS_CERT", "FSLR_TLS_KEY")
        paths = [Path(variables[name]) if variables.get(name) else None for name in names]
        return cls(*paths) if any(paths) else None


class WatchedCertificates:
    """Certificates that follow their files; a broken set never takes the place of a good one.

    Args:
        files: Where they are.

    Raises:
        CertificateError: They cannot be used.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._stamp: _Stamp | None = None
        self.current = self._read()

    def refresh(self) -> bool:
        """Read the files again if they changed, and return whether ``current`` is new.

        Raises:
            CertificateError: The new ones cannot be used, said once a change; ``current`` stays.
        """
        try:
            stamp = _stamp(self._files)
        except OSError:
            stamp = ()
        if stamp == self._stamp:
            return False
        self.current = self._read()
        return True

    def _read(self) -> Certificates:
        named = (("ca", self._files.ca), ("cert", self._files.cert), ("key", self._files.key))
        files = "TLS files (" + ", ".join(f"{n} {path}" for n, path in named if path) + ")"
        self._stamp = ()
        try:
            self._stamp = _stamp(self._files)
            found = _checked(self._files)
            if _stamp(self._files) != self._stamp:
                raise CertificateError(f"the {files} are being written")
        except ssl.SSLError as error:
            raise CertificateError(
                f"the {files} do not fit: {error.reason or error}; they must be PEM, the key not "
                "encrypted and that of the certificate"
            ) from error
        except OSError as error:
            raise CertificateError(f"the {files} cannot be read: {error.strerror}") from error
        return found


def _stamp(files: CertificateFiles) -> _Stamp:
    stats = [path.stat() for path in (files.ca, files.cert, files.key) if path is not None]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _checked(files: CertificateFiles) -> Certificates:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if files.ca is not None:
        context.load_verify_locations(files.ca)
    ca = None if files.ca is None else files.ca.read_bytes()
    if files.cert is None or files.key is None:
        return Certificates(ca, None)
    # An encrypted key is refused, instead of asked about on the terminal.
    context.load_cert_chain(files.cert, files.key, password=lambda: b"")
    return Certificates(ca, (files.key.read_bytes(), files.cert.read_bytes()))
