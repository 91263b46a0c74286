"""TLS between service and clients: which clients are accepted, and certificate rotation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from advisor.local.server import LocalServer, LocalServerError
from fslr import AdvisorClient, CertificateFiles, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import content_message, opening_message
from tests.certificates import Authority
from tests.commands import Cli
from tests.waiting import eventually


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def secured(
    authority: Authority, *arguments: str, client_ca: Path | None = None
) -> Iterator[LocalServer]:
    cert, key = authority.issue("server")
    both = ("--tls-client-ca", str(client_ca)) if client_ca else ()
    with LocalServer(
        None, "--tls-cert", str(cert), "--tls-key", str(key), *both, *arguments
    ) as running:
        yield running


def can_connect(address: str, tls: CertificateFiles | None = None) -> bool:
    """Return whether a new client can list profiles."""
    with AdvisorClient(address, deadline_s=5, tls=tls) as client:
        try:
            list(client.list_profiles())
        except UnavailableError:
            return False
    return True


def test_only_clients_that_trust_the_authority_connect(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with secured(authority) as service:
        assert can_connect(service.address, CertificateFiles(authority.ca()))
        assert not can_connect(service.address, CertificateFiles(other.ca()))
        with (
            AdvisorClient(service.address) as client,
            pytest.raises(UnavailableError, match=r"check .* agree on TLS"),
        ):
            list(client.list_profiles())


def test_with_a_client_authority_callers_need_a_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").client()
    with secured(authority, client_ca=authority.ca()) as service:
        assert can_connect(service.address, authority.client())
        assert not can_connect(service.address, CertificateFiles(authority.ca()))
        assert not can_connect(
            service.address, CertificateFiles(authority.ca(), other.cert, other.key)
        )


def test_changed_certificates_are_loaded_without_a_restart(
    authority: Authority, tmp_path: Path
) -> None:
    old = authority.ca("old")
    with secured(authority) as service:
        assert can_connect(service.address, CertificateFiles(old))
        renewed = Authority(tmp_path)
        renewed.issue("server")
        assert can_connect(service.address, CertificateFiles(renewed.ca("new")))
        assert not can_connect(service.address, CertificateFiles(old))
        assert renewed_in(service)

        (tmp_path / "server.key").write_text("broken")
        assert can_connect(service.address, CertificateFiles(tmp_path / "new.pem"))
        assert can_connect(service.address, CertificateFiles(tmp_path / "new.pem"))
        assert not can_connect(service.address)  # plain text is never accepted
        assert service.log().count("the last valid certificate stays in use") == 1
        assert "BEGIN" not in service.log()


def test_a_run_continues_while_every_certificate_is_replaced(
    authority: Authority, tmp_path: Path
) -> None:
    """Replace server, client and authority certificates while connections last one second."""
    files = authority.client()
    with (
        secured(
            authority, "--max-connection-age-s", "1", "--grace-s", "0", client_ca=authority.ca()
        ) as service,
        AdvisorClient(service.address, tls=files) as client,
    ):
        client.register_profile("gpt", content_message())
        run = client.open_run(opening_message("projects/default/profiles/gpt"))
        measurement = pb.Measurement(unit_rates=[1.0] * 4)
        first = run.recommend(measurement).multipliers
        renewed = Authority(tmp_path)
        renewed.client()
        renewed.issue("server")
        eventually(lambda: run.recommend(measurement) and renewed_in(service))
        assert run.recommend(measurement).multipliers == first
        assert [profile.name for profile in client.list_profiles()] == [
            "projects/default/profiles/gpt@1"
        ]
        run.close()


def renewed_in(service: LocalServer) -> bool:
    return "the certificate was reloaded" in service.log()


def test_commands_read_certificate_paths_from_the_environment(authority: Authority) -> None:
    files = authority.client()
    env = {
        "FSLR_TLS_CA": str(files.ca),
        "FSLR_TLS_CERT": str(files.cert),
        "FSLR_TLS_KEY": str(files.key),
    }
    with secured(authority, client_ca=authority.ca()) as service:
        cli = Cli(service.address, "default")
        assert "SERVING" in cli.run("health", env=env).output
        assert cli.run("profile", "list", env=env).exit_code == 0
        assert "whether client and service agree on TLS" in cli.run("health", ok=False).output
        refused = cli.run("profile", "list", ok=False, env={**env, "FSLR_TLS_KEY": "/no/key"})
        assert "cannot be read: No such file" in refused.output
        half = cli.run("profile", "list", ok=False, env={"FSLR_TLS_CERT": str(files.cert)})
        assert "TLS has a certificate, but no key" in half.output


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--tls-cert", "{cert}"], "setting tls: tls_cert and tls_key must be given together"),
        (["--tls-client-ca", "{cert}"], "setting tls: tls_client_ca needs tls_cert and tls_key"),
        (["--tls-cert", "{cert}", "--tls-key", "/no/key"], "cannot be read: No such file"),
        (["--tls-cert", "{cert}", "--tls-key", "{cert}"], "cannot be used"),
    ],
)
def test_the_service_does_not_start_with_incomplete_tls_settings(
    authority: Authority, arguments: list[str], match: str
) -> None:
    cert, _ = authority.issue("server")
    given = [argument.format(cert=cert) for argument in arguments]
    with pytest.raises(LocalServerError, match=match), LocalServer(None, *given):
        pass
