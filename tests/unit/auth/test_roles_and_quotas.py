"""Tokens, roles, quotas, roles of certificates: what is proved by what, and what it allows."""

from __future__ import annotations

import asyncio
import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from advisor.auth.authenticator import Authenticator
from advisor.auth.certificate_roles import CertificateRoles, CertificateRolesError
from advisor.auth.quotas import Quotas
from advisor.auth.roles import Grant, Role
from advisor.auth.tokens import Token, TokenRecord, is_proved
from advisor.errors import (
    PermissionDeniedError,
    QuotaExceededError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from advisor.policy import InvalidValueError
from advisor.rpc.authorization import ROLES
from advisor.rpc.requests import groups_of, names_of, projects_of
from advisor.wire import RecommendLRRequest
from fslr.advisor.v1 import advisor_service_pb2, profile_service_pb2
from tests.building import content_message, layout_message, opening_message

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = ("advisor", "audit", "policy", "profile", "run", "status")


def record_of(token: Token, **changes: Any) -> TokenRecord:
    fields = {
        "project": token.project,
        "id": token.id,
        "name": "nightly",
        "role": Role.TRAINER,
        "digest": token.digest,
        "create_time": NOW,
    }
    return TokenRecord(**{**fields, **changes})


def methods() -> dict[str, Any]:
    """Return every method of the contract by its path."""
    modules = [importlib.import_module(f"fslr.advisor.v1.{s}_service_pb2") for s in SERVICES]
    return {
        f"/{service.full_name}/{method.name}": method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


@given(st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True))
def test_a_token_reads_back_as_itself(project: str) -> None:
    token = Token.new(project)
    assert Token.parse(token.text) == token


@pytest.mark.parametrize("cut", ["fslr_", "fslr_nlp", "", "x"])
def test_no_part_of_a_token_is_one(cut: str) -> None:
    text = Token.new("nlp").text
    assert Token.parse(text[: len(cut)]) is None
    assert Token.parse(text[:-1]) is None
    assert Token.parse(text + cut + "0") is None
    assert Token.parse(text.upper()) is None
    assert Token.parse(f"{text}\n") is None


def test_nothing_that_prints_a_token_shows_its_secret() -> None:
    token = Token.new("nlp")
    shown = f"{token!r} {token} {record_of(token)!r} {record_of(token).grant()}"
    assert token.secret not in shown
    assert token.digest not in shown


def test_only_the_secret_proves_a_token() -> None:
    token = Token.new("nlp")
    other = Token(token.project, token.id, Token.new("nlp").secret)
    assert is_proved(token, record_of(token))
    assert not is_proved(other, record_of(token))
    assert not is_proved(token, None)
    nobody = Token("nlp", token.id, "0" * 64)
    assert not is_proved(nobody, record_of(token, digest="0" * 64))
    assert not is_proved(token, record_of(token, digest="víctim"))


@pytest.mark.parametrize(
    ("name", "match"),
    [("", "0 characters"), ("x" * 65, "65 characters"), ("a\x1b[2J", "control character")],
)
def test_a_token_has_a_name_that_people_can_read(name: str, match: str) -> None:
    with pytest.raises(InvalidValueError, match=match):
        record_of(Token.new("nlp"), name=name)


def test_each_role_may_do_what_the_former_ones_may() -> None:
    for role in Role:
        for needed in Role:
            grant = Grant("n", "token 1", "nlp", role)
            if role >= needed:
                grant.check(needed, frozenset({"nlp"}))
            else:
                with pytest.raises(PermissionDeniedError, match=f"is a {role.word}, and this"):
                    grant.check(needed, frozenset({"nlp"}))


def test_a_grant_is_for_one_project() -> None:
    grant = Grant("n", "token 1", "nlp", Role.OPERATOR)
    grant.check(Role.VIEWER, frozenset())
    for projects in ({"vision"}, {"nlp", "vision"}, {""}, {"nlp "}):
        with pytest.raises(PermissionDeniedError, match="is for project 'nlp', not for"):
            grant.check(Role.VIEWER, frozenset(projects))


def test_every_method_has_a_role_and_those_that_write_an_operators() -> None:
    assert set(ROLES) == set(methods())
    for path, method in methods().items():
        reads = method.GetOptions().idempotency_level == 1
        advises = "/RecommendLR" in path
        wanted = Role.TRAINER if advises else Role.VIEWER if reads else Role.OPERATOR
        assert ROLES[path] == wanted, path


def _as_read(request: Any) -> Any:
    """Return a request as the service's methods are given it."""
    if isinstance(request, advisor_service_pb2.RecommendLRRequest):
        return RecommendLRRequest.from_bytes(request.SerializeToString())
    return request


def test_every_text_of_a_request_is_a_name_that_is_looked_at_or_no_name() -> None:
    """A new text field must be added to one of both: the gate must know all names."""
    no_names = {
        *("filter", "page_token", "after_id", "alias", "etag", "request_id"),
        *("opening.optimizer", "opening.loss_name", "content.docs"),
    }
    for path, method in methods().items():
        request = method.input_type._concrete_class()
        found = set()
        for prefix, message in (
            ("", request),
            *(
                (f"{field}.", getattr(request, field))
                for field in ("opening", "content")
                if field in method.input_type.fields_by_name
            ),
        ):
            for field in message.DESCRIPTOR.fields:
                if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
                    found.add(f"{prefix}{field.name}")
        names = found - no_names
        for place, name in enumerate(sorted(names)):
            where = request
            *parents, last = name.split(".")
            for parent in parents:
                where = getattr(where, parent)
            setattr(where, last, f"projects/p{place}/x")
        assert projects_of(_as_read(request)) == {f"p{i}" for i in range(len(names))}, path


def test_groups_are_counted_wherever_a_layout_comes() -> None:
    layout = layout_message(["a", "b"])
    layout.frozen_names.append("c")
    content = content_message(["a", "b", "c"])
    opening = opening_message("projects/p/profiles/x", ["a"])
    counted = [
        groups_of(profile_service_pb2.ValidateLayoutRequest(layout=layout)),
        groups_of(profile_service_pb2.RegisterProfileRequest(content=content)),
        groups_of(_as_read(advisor_service_pb2.RecommendLRRequest(opening=opening))),
        groups_of(_as_read(advisor_service_pb2.RecommendLRRequest())),
        groups_of(profile_service_pb2.GetProfileRequest()),
    ]
    assert counted == [3, 3, 1, 0, 0]
    assert names_of(_as_read(advisor_service_pb2.RecommendLRRequest())) == ()


def test_a_caller_has_so_many_streams_and_no_more() -> None:
    quotas = Quotas(max_streams=2, max_messages_per_s=1)
    one, other = (Grant("n", f"token {i}", "nlp", Role.TRAINER) for i in "12")
    with (
        quotas.stream(one),
        quotas.stream(one),
        quotas.stream(other),
        pytest.raises(QuotaExceededError, match=r"n \(token 1\) has 2 open streams here"),
        quotas.stream(one),
    ):
        pass
    with quotas.stream(one), quotas.stream(one):
        pass


def test_messages_come_at_their_rate_after_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("advisor.auth.quotas.time.monotonic", lambda: clock)
    quotas = Quotas(max_streams=1, max_messages_per_s=10)
    one, other = (Grant("n", f"token {i}", "nlp", Role.TRAINER) for i in "12")
    let_in = 0
    delays_s = []
    for _ in range(1_000):
        clock += 0.01
        try:
            quotas.message(one)
            let_in += 1
        except QuotaExceededError as error:
            delays_s.append(error.retry_s)
    assert all(0 < delay_s <= 0.1 for delay_s in delays_s)
    assert 20 + 95 <= let_in <= 20 + 101
    quotas.message(other)
    with pytest.raises(QuotaExceededError, match="sent 10 messages a second, as many as it may"):
        for _ in range(21):
            quotas.message(other)


ROLES_FILE = """
roles:
  - {certificate: nightly.example, project: nlp, role: trainer}
  - {certificate: ops, project: nlp, role: operator}
"""


def test_the_first_entry_that_has_a_name_of_the_certificate_counts(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(ROLES_FILE)
    roles = CertificateRoles(path)
    both = roles.grant(["ops", "nightly.example"])
    assert both == Grant("nightly.example", "certificate", "nlp", Role.TRAINER)
    assert roles.grant(["nightly.example.evil", "night", ""]) is None
    path.write_text(ROLES_FILE.replace("ops", "platform"))
    assert roles.grant(["ops"]) is None
    assert roles.grant(["platform"])
    path.write_text("roles: [")
    assert roles.grant(["platform"])
    path.unlink()
    assert roles.grant(["platform"])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("roles: [", "are not YAML"),
        ("", "cannot be used: the file: Input should be a valid dictionary"),
        ("roles: [{certificate: a, project: b, role: boss}]", "roles.0.role: Input should be"),
        ("roles: [{certificate: a, project: B, role: viewer}]", "roles.0.project: String should"),
        ("roles: [{certificate: '', project: b, role: viewer}]", "roles.0.certificate: String"),
        ("roles: [{certificate: a, role: viewer}]", "roles.0.project: Field required"),
        ("rules: []", "Field required"),
    ],
)
def test_a_file_of_roles_that_cannot_be_used_is_refused(
    tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    with pytest.raises(CertificateRolesError, match=match):
        CertificateRoles(path)
    with pytest.raises(CertificateRolesError, match="cannot be read: No such file"):
        CertificateRoles(tmp_path / "none.yaml")


class _Tokens:
    """Records in memory, which can go away."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], TokenRecord] = {}
        self.away = False
        self.asked = 0

    async def get(self, project: str, token_id: str) -> TokenRecord | None:
        self.asked += 1
        if self.away:
            raise StoreUnavailableError("gone")
        return self.records.get((project, token_id))


def test_a_token_is_looked_up_now_and_then_and_believed_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, now = 100.0, NOW
    monkeypatch.setattr("advisor.auth.authenticator.time.monotonic", lambda: clock)
    store = _Tokens()
    proves = Authenticator(store, None, lambda: now, recheck_s=10)
    token, unseen = Token.new("nlp"), Token.new("nlp")
    for made in (token, unseen):
        ends = NOW + timedelta(hours=1)
        store.records["nlp", made.id] = record_of(made, expire_time=ends)

    def grant(text: str) -> Grant:
        return asyncio.run(proves.grant(text, []))

    assert grant(token.text).role == Role.TRAINER
    grant(token.text)
    assert store.asked == 1
    store.away = True
    clock += 11
    grant(token.text)
    grant(token.text)
    assert store.asked == 2  # while it is away, not every call waits for it
    with pytest.raises(StoreUnavailableError, match="the store does not answer"):
        grant(unseen.text)
    now = NOW + timedelta(hours=1)
    with pytest.raises(UnauthenticatedError, match=r"nightly \(token .*\) expired at 2026-01-01"):
        grant(token.text)
    now, store.away = NOW, False
    del store.records["nlp", token.id]
    clock += 11
    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match="is none that is in force here"):
            grant(token.text)
    store.away = True
    with pytest.raises(StoreUnavailableError, match="the store does not answer"):
        grant(token.text)  # once known to be revoked, it does not come back


def test_what_is_wrong_with_a_token_is_not_told() -> None:
    store = _Tokens()
    token = Token.new("nlp")
    store.records["nlp", token.id] = record_of(token)
    proves = Authenticator(store, None, lambda: NOW, recheck_s=10)
    wrong = [
        Token("nlp", token.id, "0" * 64).text,
        Token("nlp", "0" * 12, token.secret).text,
        Token("vision", token.id, token.secret).text,
        *("", "x", token.text[:-1], "fslr_}{_000000000000_" + "0" * 64),
    ]
    told = set()
    for text in wrong:
        with pytest.raises(UnauthenticatedError, match="none that is in force") as caught:
            asyncio.run(proves.grant(text, []))
        told.add(str(caught.value))
    assert len(told) == 1


def test_without_a_token_the_certificate_must_have_a_role(tmp_path: Path) -> None:
    (tmp_path / "roles").write_text(ROLES_FILE)
    roles = CertificateRoles(tmp_path / "roles")
    proves = Authenticator(_Tokens(), roles, lambda: NOW, recheck_s=10)
    assert asyncio.run(proves.grant(None, ["ops"])).role == Role.OPERATOR
    with pytest.raises(UnauthenticatedError, match=r"names \(job, team\) have no role here"):
        asyncio.run(proves.grant(None, ["job", "team"]))
    with pytest.raises(UnauthenticatedError, match="the call has no token"):
        asyncio.run(proves.grant(None, []))
    with pytest.raises(UnauthenticatedError, match="none that is in force"):
        asyncio.run(proves.grant("x", ["ops"]))  # a wrong token is not made good by a certificate
