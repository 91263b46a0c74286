"""Where clients take their token from, and to which addresses they send it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fslr import AdvisorClient, CertificateFiles, TokenError
from fslr.client.tokens import TokenSource
from tests.certificates import Authority

TOKEN = "fslr_nlp_0123456789ab_" + "a" * 64


def authorization(source: TokenSource) -> str | None:
    return dict(source.metadata()).get("authorization")


def test_a_token_comes_from_the_environment_or_a_file_that_may_change(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert authorization(TokenSource.from_environment({})) is None
    assert authorization(TokenSource.from_environment({"FSLR_TOKEN": TOKEN})) == f"Bearer {TOKEN}"
    source = TokenSource.from_environment({"FSLR_TOKEN": "", "FSLR_TOKEN_FILE": str(path)})
    assert authorization(source) == f"Bearer {TOKEN}"
    path.write_text("renewed")
    assert authorization(source) == "Bearer renewed"
    assert TOKEN not in repr(TokenSource(TOKEN))


def test_a_token_file_that_breaks_leaves_the_last_good_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    source = TokenSource(path=path)
    path.write_text("")
    for _ in range(2):
        assert authorization(source) == f"Bearer {TOKEN}"
    assert len(caplog.records) == 1
    assert (
        caplog
        .records[0]
        .getMessage()
        .startswith(f"the last good token stays in use: the content of {path} is not a valid token")
    )
    path.unlink()
    assert authorization(source) == f"Bearer {TOKEN}"
    assert "cannot be read" in caplog.records[1].getMessage()
    path.write_text("renewed")
    assert authorization(source) == "Bearer renewed"


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "gehéim", "\x00"])
def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TokenError, match="the token is not a valid token"):
        TokenSource(text)
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(TokenError, match=r"the content of .*/token is not a valid token"):
        TokenSource(path=path)
    with pytest.raises(TokenError, match=r"the token file .*/none cannot be read: No such file"):
        TokenSource(path=tmp_path / "none")


def test_a_token_goes_to_other_machines_only_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TokenError, match=r"the token would be sent to advisor:1 unencrypted"):
        AdvisorClient("advisor:1", token=TOKEN)
    monkeypatch.setitem(os.environ, "FSLR_TOKEN", TOKEN)
    with pytest.raises(TokenError, match=r"set FSLR_TLS_CA .* FSLR_ALLOW_INSECURE=1"):
        AdvisorClient("advisor:1")
    AdvisorClient("advisor:1", tls=CertificateFiles(Authority(tmp_path).ca()))
    AdvisorClient("127.0.0.1:1")
    AdvisorClient("advisor:1", allow_insecure=True)
    monkeypatch.setitem(os.environ, "FSLR_ALLOW_INSECURE", "1")
    AdvisorClient("advisor:1")
