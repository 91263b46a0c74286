"""Authorities and certificates for tests, as the files that the service and its clients read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import trustme

from fslr import CertificateFiles


@dataclass
class Authority:
    """Writes its own certificate and those that it issues into a folder."""

    folder: Path
    _authority: trustme.CA = field(default_factory=trustme.CA)

    def ca(self, name: str = "ca") -> Path:
        path = self.folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(path))
        return path

    def issue(self, name: str, *identities: str, ends: datetime | None = None) -> tuple[Path, Path]:
        """Write a certificate for names or addresses, and its key; it ends in 2038, if not told."""
        issued = self._authority.issue_cert(
            *(identities or ("localhost", "127.0.0.1")), not_after=ends
        )
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        key.write_bytes(issued.private_key_pem.bytes())
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return cert, key

    def client(self, name: str = "client") -> CertificateFiles:
        """Write what a client needs: this authority, and a certificate of it."""
        return CertificateFiles(self.ca(), *self.issue(name, "job@team"))
