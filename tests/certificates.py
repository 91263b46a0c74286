"""Certificate authorities and certificates for tests, written to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import trustme

from fslr import CertificateFiles


@dataclass
class Authority:
    """A certificate authority that writes its certificates and keys into a folder."""

    folder: Path
    _authority: trustme.CA = field(default_factory=trustme.CA)

    def ca(self, name: str = "ca") -> Path:
        path = self.folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(path))
        return path

    def issue(self, name: str, *identities: str, ends: datetime | None = None) -> tuple[Path, Path]:
        """Write a certificate for names or addresses, and its key; by default it ends in 2038."""
        issued = self._authority.issue_cert(
            *(identities or ("localhost", "127.0.0.1")), not_after=ends
        )
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        key.write_bytes(issued.private_key_pem.bytes())
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return cert, key

    def client(self, name: str = "client") -> CertificateFiles:
        """Write the files of a client: this authority, a certificate and its key."""
        return CertificateFiles(self.ca(), *self.issue(name, "job@team"))
