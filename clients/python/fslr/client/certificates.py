"""TLS certificates in PEM files: checked before use, and read again when the files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fslr.client.file_watch import WatchedFiles, file_stamp
from fslr.errors import CertificateError


@dataclass(frozen=True, slots=True)
class Certificates:
    """The contents of :class:`CertificateFiles`.

    Attributes:
        ca: The trusted certificate authorities, PEM; None: the authorities of the system.
        pair: The private key and its certificate with the chain, PEM; None: no own certificate.
    """

    ca: bytes | None
    pair: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Paths of TLS files, in PEM format.

    Attributes:
        ca: The trusted certificate authorities; None: the authorities of the system.
        cert: The own certificate with its chain; None: no own certificate.
        key: The certificate's private key, unencrypted; given if and only if ``cert`` is.

    Raises:
        CertificateError: ``cert`` is given without ``key``, or ``key`` without ``cert``.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Check that certificate and key come together.

        Raises:
            CertificateError: Only one of them is given.
        """
        if (self.cert is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.cert is None else ("certificate", "key")
            raise CertificateError(
                f"TLS has a {given}, but no {missing}; name both files or neither"
            )

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Self | None:
        """Return the files that ``FSLR_TLS_CA``, ``FSLR_TLS_CERT`` and ``FSLR_TLS_KEY`` name.

        None if none of the three is set.

        Raises:
            CertificateError: A certificate is named without its key, or a key without its
                certificate.
        """
        names = ("FSLR_TLS_CA", "FSLR_TLS_CERT", "FSLR_TLS_KEY")
        paths = [Path(variables[name]) if variables.get(name) else None for name in names]
        return cls(*paths) if any(paths) else None

    def read(self) -> Certificates:
        """Read the files and check that they can be used.

        Raises:
            CertificateError: A file cannot be read, is not PEM, or changed during the read; or the
                key is encrypted or does not belong to the certificate.
        """
        named = (("ca", self.ca), ("cert", self.cert), ("key", self.key))
        listed = ", ".join(f"{name} {path}" for name, path in named if path)
        before = file_stamp(self._paths)
        try:
            certificates = self._checked()
        except ssl.SSLError as error:
            raise CertificateError(
                f"the TLS files ({listed}) cannot be used: {error.reason or error}; all must be "
                "PEM, and the key must be unencrypted and belong to the certificate"
            ) from error
        except OSError as error:
            raise CertificateError(
                f"the TLS files ({listed}) cannot be read: {error.strerror}"
            ) from error
        if file_stamp(self._paths) != before:
            raise CertificateError(f"the TLS files ({listed}) changed while they were read")
        return certificates

    def watch(self) -> WatchedFiles[Certificates]:
        """Read the files, and return their contents in a form that follows later changes.

        Raises:
            CertificateError: As for :meth:`read`.
        """
        return WatchedFiles(self._paths, self.read)

    @property
    def _paths(self) -> list[Path]:
        return [path for path in (self.ca, self.cert, self.key) if path is not None]

    def _checked(self) -> Certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.ca is not None:
            context.load_verify_locations(self.ca)
        ca = None if self.ca is None else self.ca.read_bytes()
        if self.cert is None or self.key is None:
            return Certificates(ca, None)
        # With a password at hand, an encrypted key is an error and no prompt on the terminal.
        context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        return Certificates(ca, (self.key.read_bytes(), self.cert.read_bytes()))
