"""TLS of the server: its certificate is read again when its files change, without a restart."""

from __future__ import annotations

import grpc
import structlog

from fslr.client.certificates import CertificateFiles, Certificates
from fslr.errors import CertificateError

_log = structlog.get_logger()


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow their files.

    Each new connection looks at the files. If the new ones cannot be used, that is logged once and
    the last good ones stay. Connections that are open keep what they began with.

    Args:
        files: Certificate and key; with ``ca``, callers must have a certificate of it.

    Raises:
        CertificateError: The files cannot be used at the start.
    """
    watched = files.watch()

    def fresh() -> grpc.ServerCertificateConfiguration | None:
        try:
            if not watched.refresh():
                return None
        except CertificateError as error:
            _log.error("the last good certificate stays in use", error=str(error))
            return None
        _log.info("the certificate was read again")
        return _configuration(watched.current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(watched.current),
        fresh,  # type: ignore[arg-type]  # None is said to mean: unchanged
        require_client_authentication=files.ca is not None,
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pairs = [] if certificates.pair is None else [certificates.pair]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=certificates.ca)
