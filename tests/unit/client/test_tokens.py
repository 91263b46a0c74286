"""Where clients take their token from, and to whom they send it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fslr import AdvisorClient, CertificateFiles, TokenError
from fslr.client.tokens import TokenSource, stays_on_this_machine
from tests.certificates import Authority

TOKEN = "fslr_nlp_0123456789ab_" + "a" * 64


def authorization(source: TokenSource) -> str | None:
    return dict(source.metadata()).get("authorization")


def test_a_token_comes_from_the_environment_or_a_file_that_may_change(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert authorization(TokenSource.of_environment({})) is None
    assert authorization(TokenSource.of_environment({"FSLR_TOKEN": TOKEN})) == f"Bearer {TOKEN}"
    source = TokenSource.of_environment({"FSLR_TOKEN": "", "FSLR_TOKEN_FILE": str(path)})
    assert authorization(source) == f"Bearer {TOKEN}"
    path.write_text("another")
    assert authorization(source) == "Bearer another"
    path.write_text("")
    assert authorization(source) == "Bearer another"
    path.unlink()
    assert authorization(source) == "Bearer another"
    assert TOKEN not in repr(TokenSource(TOKEN))


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "gehéim", "\x00"])
def test_what_no_header_carries_is_no_token(tmp_path: Path, text: str) -> None:
    with pytest.raises(TokenError, match="the token is no token"):
        TokenSource(text)
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(TokenError, match=r"what .*/token holds is no token"):
        TokenSource(path=path)
    with pytest.raises(TokenError, match=r"file .*/none cannot be read"):
        TokenSource(path=tmp_path / "none")


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        *(("localhost:1", True), ("127.0.0.1:1", True), ("127.9.9.9:1", True), ("[::1]:1", True)),
        *(("unix:/run/x", True), ("unix-abstract:x", True), ("dns:///localhost:1", True)),
        *(("ipv4:127.0.0.1:1,127.0.0.2:2", True), ("ipv6:[::1]:1", True)),
        *(("ipv4:127.0.0.1:1,10.0.0.1:2", False), ("10.0.0.1:1", False), ("advisor:1", False)),
        *(("dns:///advisor:1", False), ("localhost.example:1", False), ("127.0.0.1.x:1", False)),
        *(("unix1.example:1", False), ("unix", False), ("unix-abstract.example:1", False)),
        *(("[2001:db8::1]:1", False), ("dns:advisor", False), ("", False)),
    ],
)
def test_who_can_read_along(address: str, stays: bool) -> None:
    assert stays_on_this_machine(address) == stays


def test_a_token_goes_to_other_machines_only_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TokenError, match=r"the token would go to advisor:1 unencrypted"):
        AdvisorClient("advisor:1", token=TOKEN)
    monkeypatch.setitem(os.environ, "FSLR_TOKEN", TOKEN)
    with pytest.raises(TokenError, match=r"set FSLR_TLS_CA .* or FSLR_ALLOW_INSECURE=1"):
        AdvisorClient("advisor:1")
    AdvisorClient("advisor:1", tls=CertificateFiles(Authority(tmp_path).ca()))
    AdvisorClient("127.0.0.1:1")
    AdvisorClient("advisor:1", allow_insecure=True)
    monkeypatch.setitem(os.environ, "FSLR_ALLOW_INSECURE", "1")
    AdvisorClient("advisor:1")
