"""Tokens, roles, quotas and certificate roles: authentication and permissions."""

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
from advisor.auth.tokens import Token, TokenRecord, is_valid
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
SERVICES = ("advisor", "audit", "policy", "profile", "recipe", "run", "status")


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
def test_a_token_is_parsed_from_its_text(project: str) -> None:
    token = Token.new(project)
    assert Token.parse(token.text) == token


@pytest.mark.parametrize("cut", ["fslr_", "fslr_nlp", "", "x"])
def test_a_shortened_extended_or_changed_token_is_not_parsed(cut: str) -> None:
    text = Token.new("nlp").text
    assert Token.parse(text[: len(cut)]) is None
    assert Token.parse(text[:-1]) is None
    assert Token.parse(text + cut + "0") is None
    assert Token.parse(text.upper()) is None
    assert Token.parse(f"{text}\n") is None


def test_printing_a_token_does_not_show_its_secret() -> None:
    token = Token.new("nlp")
    printed = f"{token!r} {token} {record_of(token)!r} {record_of(token).grant()}"
    assert token.secret not in printed
    assert token.digest not in printed


def test_only_the_right_secret_makes_a_token_valid() -> None:
    token = Token.new("nlp")
    other = Token(token.project, token.id, Token.new("nlp").secret)
    assert is_valid(token, record_of(token))
    assert not is_valid(other, record_of(token))
    assert not is_valid(token, None)
    unknown = Token("nlp", token.id, "0" * 64)
    assert not is_valid(unknown, record_of(token, digest="0" * 64))
    assert not is_valid(token, record_of(token, digest="víctim"))


@pytest.mark.parametrize(
    ("name", "match"),
    [("", "0 characters"), ("x" * 65, "65 characters"), ("a\x1b[2J", "control character")],
)
def test_a_token_name_that_is_empty_too_long_or_unprintable_is_refused(
    name: str, match: str
) -> None:
    with pytest.raises(InvalidValueError, match=match):
        record_of(Token.new("nlp"), name=name)


def test_each_role_includes_the_lower_ones() -> None:
    for role in Role:
        for needed in Role:
            grant = Grant("n", "token 1", "nlp", role)
            if role >= needed:
                grant.check(needed, frozenset({"nlp"}))
            else:
                with pytest.raises(PermissionDeniedError, match=f"is a {role.word}, but this"):
                    grant.check(needed, frozenset({"nlp"}))


def test_a_grant_is_refused_for_other_projects() -> None:
    grant = Grant("n", "token 1", "nlp", Role.OPERATOR)
    grant.check(Role.VIEWER, frozenset())
    for projects in ({"vision"}, {"nlp", "vision"}, {""}, {"nlp "}):
        with pytest.raises(PermissionDeniedError, match="is for project 'nlp', not for"):
            grant.check(Role.VIEWER, frozenset(projects))


def test_every_method_has_a_role_and_writes_need_an_operator() -> None:
    assert set(ROLES) == set(methods())
    for path, method in methods().items():
        reads = method.GetOptions().idempotency_level == 1
        trains = "/RecommendLR" in path or path.endswith("/ReportRunMetrics")
        expected = Role.TRAINER if trains else Role.VIEWER if reads else Role.OPERATOR
        assert ROLES[path] == expected, path


def _as_received(request: Any) -> Any:
    """Return a request as the service's methods receive it."""
    if isinstance(request, advisor_service_pb2.RecommendLRRequest):
        return RecommendLRRequest.from_bytes(request.SerializeToString())
    return request


def test_every_text_field_of_a_request_is_a_checked_name_or_a_known_exception() -> None:
    """A new text field must be classified, because authorization must check every name."""
    no_names = {
        *("filter", "page_token", "after_id", "after_metrics_id"),
        *("alias", "etag", "request_id"),
        *(
            "optimizer",
            "opening.optimizer",
            "opening.loss_name",
            "opening.session",
            "content.docs",
            "content.mask",
        ),
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
        assert projects_of(_as_received(request)) == {f"p{i}" for i in range(len(names))}, path


def test_groups_are_counted_in_every_request_with_a_layout() -> None:
    layout = layout_message(["a", "b"])
    layout.frozen_names.append("c")
    content = content_message(["a", "b", "c"])
    opening = opening_message("projects/p/profiles/x", ["a"])
    counted = [
        groups_of(profile_service_pb2.ValidateLayoutRequest(layout=layout)),
        groups_of(profile_service_pb2.RegisterProfileRequest(content=content)),
        groups_of(_as_received(advisor_service_pb2.RecommendLRRequest(opening=opening))),
        groups_of(_as_received(advisor_service_pb2.RecommendLRRequest())),
        groups_of(profile_service_pb2.GetProfileRequest()),
    ]
    assert counted == [3, 3, 1, 0, 0]
    assert names_of(_as_received(advisor_service_pb2.RecommendLRRequest())) == ()


def test_a_caller_can_open_at_most_max_streams() -> None:
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


def test_messages_are_limited_to_their_rate_after_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("advisor.runtime.token_buckets.time.monotonic", lambda: clock)
    quotas = Quotas(max_streams=1, max_messages_per_s=10)
    one, other = (Grant("n", f"token {i}", "nlp", Role.TRAINER) for i in "12")
    accepted = 0
    delays_s = []
    for _ in range(1_000):
        clock += 0.01
        try:
            quotas.message(one)
            accepted += 1
        except QuotaExceededError as error:
            delays_s.append(error.retry_s)
    assert all(0 < delay_s <= 0.1 for delay_s in delays_s)
    assert 20 + 95 <= accepted <= 20 + 101
    quotas.message(other)
    with pytest.raises(QuotaExceededError, match="sends more than 10 messages per second"):
        for _ in range(21):
            quotas.message(other)


ROLES_FILE = """
roles:
  - {certificate: nightly.example, project: nlp, role: trainer}
  - {certificate: ops, project: nlp, role: operator}
"""


def test_the_first_entry_with_one_of_the_certificate_names_applies_and_the_file_is_followed(
    tmp_path: Path,
) -> None:
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
        ("", "are not valid: the file: Input should be a valid dictionary"),
        ("roles: [{certificate: a, project: b, role: boss}]", "roles.0.role: Input should be"),
        ("roles: [{certificate: a, project: B, role: viewer}]", "roles.0.project: String should"),
        ("roles: [{certificate: '', project: b, role: viewer}]", "roles.0.certificate: String"),
        ("roles: [{certificate: a, role: viewer}]", "roles.0.project: Field required"),
        ("rules: []", "Field required"),
    ],
)
def test_an_invalid_file_of_certificate_roles_is_refused(
    tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    with pytest.raises(CertificateRolesError, match=match):
        CertificateRoles(path)
    with pytest.raises(CertificateRolesError, match="cannot be read: No such file"):
        CertificateRoles(tmp_path / "none.yaml")


class _Tokens:
    """Records in memory that can become unavailable."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], TokenRecord] = {}
        self.is_unavailable = False
        self.lookups = 0

    async def get(self, project: str, token_id: str) -> TokenRecord | None:
        self.lookups += 1
        if self.is_unavailable:
            raise StoreUnavailableError("gone")
        return self.records.get((project, token_id))


def test_a_token_is_cached_and_stays_valid_while_the_store_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, now = 100.0, NOW
    monkeypatch.setattr("advisor.auth.authenticator.time.monotonic", lambda: clock)
    store = _Tokens()
    authenticator = Authenticator(store, None, lambda: now, cache_s=10)
    token, unseen = Token.new("nlp"), Token.new("nlp")
    for made in (token, unseen):
        ends = NOW + timedelta(hours=1)
        store.records["nlp", made.id] = record_of(made, expire_time=ends)

    def grant(text: str) -> Grant:
        return asyncio.run(authenticator.authenticate(text, []))

    assert grant(token.text).role == Role.TRAINER
    grant(token.text)
    assert store.lookups == 1
    store.is_unavailable = True
    clock += 11
    grant(token.text)
    grant(token.text)
    assert store.lookups == 2  # not every call waits while the store is unavailable
    with pytest.raises(StoreUnavailableError, match="the store does not answer"):
        grant(unseen.text)
    now = NOW + timedelta(hours=1)
    with pytest.raises(UnauthenticatedError, match=r"nightly \(token .*\) expired at 2026-01-01"):
        grant(token.text)
    now, store.is_unavailable = NOW, False
    del store.records["nlp", token.id]
    clock += 11
    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match="is not valid here"):
            grant(token.text)
    store.is_unavailable = True
    with pytest.raises(StoreUnavailableError, match="the store does not answer"):
        grant(token.text)  # a token that is found to be revoked is removed from the cache


def test_every_invalid_token_gets_the_same_error() -> None:
    store = _Tokens()
    token = Token.new("nlp")
    store.records["nlp", token.id] = record_of(token)
    authenticator = Authenticator(store, None, lambda: NOW, cache_s=10)
    wrong = [
        Token("nlp", token.id, "0" * 64).text,
        Token("nlp", "0" * 12, token.secret).text,
        Token("vision", token.id, token.secret).text,
        *("", "x", token.text[:-1], "fslr_}{_000000000000_" + "0" * 64),
    ]
    messages = set()
    for text in wrong:
        with pytest.raises(UnauthenticatedError, match="token is not valid") as caught:
            asyncio.run(authenticator.authenticate(text, []))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_caller_without_a_token_needs_a_certificate_with_a_role(tmp_path: Path) -> None:
    (tmp_path / "roles").write_text(ROLES_FILE)
    roles = CertificateRoles(tmp_path / "roles")
    authenticator = Authenticator(_Tokens(), roles, lambda: NOW, cache_s=10)
    assert asyncio.run(authenticator.authenticate(None, ["ops"])).role == Role.OPERATOR
    with pytest.raises(UnauthenticatedError, match=r"names \(job, team\) have no role here"):
        asyncio.run(authenticator.authenticate(None, ["job", "team"]))
    with pytest.raises(UnauthenticatedError, match="the call has no token"):
        asyncio.run(authenticator.authenticate(None, []))
    with pytest.raises(UnauthenticatedError, match="token is not valid"):
        asyncio.run(
            authenticator.authenticate("x", ["ops"])
        )  # a certificate does not replace an invalid token
