"""TLS files: which are refused, and which are read again after a change."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fslr import CertificateError, CertificateFiles
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_read_returns_the_contents_of_the_files(authority: Authority) -> None:
    files = authority.client()
    assert files.ca is not None
    assert files.cert is not None
    assert files.key is not None
    held = files.read()
    assert held.ca == files.ca.read_bytes()
    assert held.pair == (files.key.read_bytes(), files.cert.read_bytes())


def test_the_environment_names_the_files() -> None:
    assert CertificateFiles.from_environment({}) is None
    assert CertificateFiles.from_environment({"FSLR_TLS_CA": ""}) is None
    named = {"FSLR_TLS_CA": "a", "FSLR_TLS_CERT": "b", "FSLR_TLS_KEY": "c"}
    assert CertificateFiles.from_environment(named) == CertificateFiles(
        Path("a"), Path("b"), Path("c")
    )


@pytest.mark.parametrize(
    ("variable", "match"),
    [("FSLR_TLS_CERT", "a certificate, but no key"), ("FSLR_TLS_KEY", "a key, but no certificate")],
)
def test_a_certificate_needs_its_key(variable: str, match: str) -> None:
    with pytest.raises(CertificateError, match=match):
        CertificateFiles.from_environment({variable: "x"})


def test_errors_name_the_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("one")
    _, other_key = authority.issue("other")
    text = tmp_path / "text.pem"
    text.write_text("not a certificate")
    missing = tmp_path / "missing.pem"
    encrypted = tmp_path / "encrypted.key"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for files, match in (
        (CertificateFiles(missing), r"missing\.pem\) cannot be read: No such file"),
        (CertificateFiles(text), r"ca .*text\.pem\) cannot be used: NO_CERTIFICATE"),
        (CertificateFiles(None, cert, other_key), "cannot be used: KEY_VALUES_MISMATCH"),
        (CertificateFiles(None, text, key), "cannot be used"),
        (CertificateFiles(None, cert, encrypted), "cannot be used: .* must be unencrypted"),
    ):
        with pytest.raises(CertificateError, match=match):
            files.read()


def test_changed_files_replace_the_certificates_but_broken_files_do_not(
    authority: Authority,
) -> None:
    cert, key = authority.issue("one")
    watched = CertificateFiles(None, cert, key).watch()
    first = watched.current
    assert not watched.refresh()
    authority.issue("one")
    assert watched.refresh()
    second = watched.current
    assert second != first

    good = key.read_bytes()
    key.write_bytes(b"broken")
    with pytest.raises(CertificateError, match="cannot be used"):
        watched.refresh()
    assert not watched.refresh()  # reported once
    assert watched.current == second
    key.unlink()
    with pytest.raises(CertificateError, match="cannot be read"):
        watched.refresh()
    assert not watched.refresh()
    key.write_bytes(good)
    assert watched.refresh()
    assert watched.current == second
