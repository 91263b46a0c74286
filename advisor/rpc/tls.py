"""TLS of the server: changed certificate files are reloaded without a restart."""

from __future__ import annotations

import grpc
import structlog

from fslr.client.certificates import CertificateFiles, Certificates
from fslr.errors import CertificateError

_log = structlog.get_logger()


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow their files.

    Each new connection checks the files. If changed files cannot be used, that is logged once and
    the last valid certificate stays in use. Open connections keep their certificate.

    Args:
        files: Certificate and key. With ``ca``, callers must present a certificate that it issued.

    Raises:
        CertificateError: The files cannot be used at the start.
    """
    watched = files.watch()

    def reloaded() -> grpc.ServerCertificateConfiguration | None:
        try:
            if not watched.refresh():
                return None
        except CertificateError as error:
            _log.error("the last valid certificate stays in use", error=str(error))
            return None
        _log.info("the certificate was reloaded")
        return _configuration(watched.current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(watched.current),
        reloaded,  # type: ignore[arg-type]  # None is documented to mean: unchanged
        require_client_authentication=files.ca is not None,
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pairs = [] if certificates.pair is None else [certificates.pair]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=certificates.ca)
