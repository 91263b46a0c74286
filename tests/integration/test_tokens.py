"""Tokens, roles and quotas against a real service: each role permits exactly its methods."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from advisor.auth.roles import Role
from advisor.local.server import LocalServer, LocalServerError
from advisor.rpc.authorization import ROLES
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import (
    AdvisorClient,
    AuthenticationError,
    CertificateFiles,
    MessageTooLargeError,
    PermissionDeniedError,
    TooBusyError,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1.run_service_pb2 import WatchRunRequest
from fslr.advisor.v1.run_service_pb2_grpc import RunServiceStub
from tests.building import content_message, opening_message
from tests.certificates import Authority
from tests.commands import Cli
from tests.integration.test_project_isolation import REQUESTS, SHAPES
from tests.operator_tokens import Tokens
from tests.redis_servers import RedisServer
from tests.waiting import eventually

PROJECT = "attacker"  # the project that the requests name
MEASUREMENT = pb.Measurement(unit_rates=[1.0] * 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(store: EmbeddedRedis) -> Tokens:
    return Tokens(store.url, PROJECT)


@pytest.fixture(scope="module")
def service(store: EmbeddedRedis) -> Iterator[LocalServer]:
    with LocalServer(
        None,
        *("--redis-url", store.url, "--authenticate", "--token-cache-s", "0.5"),
        *("--max-token-streams", "2", "--max-groups", "50"),
    ) as running:
        yield running


def code_of(client: AdvisorClient, path: str, metadata: Any) -> grpc.StatusCode:
    """Send the method's request, and return its status; a stream is read up to one answer."""
    request = REQUESTS[path]
    method: Any = getattr(client.channel(), SHAPES.get(path, "unary_unary"))(
        f"/fslr.advisor.v1.{path}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=bytes,
    )
    try:
        if path == "AdvisorService/RecommendLR":
            next(method(iter([request]), timeout=5, metadata=metadata))
        elif path == "RunService/WatchRun":
            next(method(request, timeout=5, metadata=metadata))
        else:
            method(request, timeout=5, metadata=metadata)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def filled(service: LocalServer, tokens: Tokens) -> LocalServer:
    """The service with stored data to read."""
    with AdvisorClient(service.address, token=tokens.create("operator")["token"]) as client:
        for rate in (1.0, 2.0):
            client.register_profile("gpt", content_message(rate=rate), project=PROJECT)
        client.recommend_once(
            opening_message("projects/attacker/profiles/gpt", run="projects/attacker/runs/one"),
            MEASUREMENT,
        )
        eventually(lambda: [*client.list_runs(project=PROJECT)])
    return service


def test_the_requests_cover_every_method() -> None:
    assert {f"/fslr.advisor.v1.{path}" for path in REQUESTS} == set(ROLES)


@pytest.mark.parametrize("role", ["viewer", "trainer", "operator"])
def test_each_role_may_call_exactly_its_methods(
    filled: LocalServer, tokens: Tokens, role: str
) -> None:
    with AdvisorClient(filled.address, token=tokens.create(role)["token"]) as client:
        for path in REQUESTS:
            allowed = Role[role.upper()] >= ROLES[f"/fslr.advisor.v1.{path}"]
            code = code_of(client, path, client.metadata())
            assert (code != grpc.StatusCode.PERMISSION_DENIED) == allowed, path
            assert code != grpc.StatusCode.UNAUTHENTICATED


def test_every_method_refuses_a_token_for_a_different_project(
    filled: LocalServer, tokens: Tokens
) -> None:
    created_token = tokens.create("operator", project="victim")
    with AdvisorClient(filled.address, token=created_token["token"]) as client:
        for path in REQUESTS:
            wanted = (
                grpc.StatusCode.OK
                if path == "StatusService/GetStatus"
                else grpc.StatusCode.PERMISSION_DENIED
            )
            assert code_of(client, path, client.metadata()) == wanted, path
        with pytest.raises(
            PermissionDeniedError, match="is for project 'victim', not for 'attacker'; name proj"
        ):
            client.get_profile("gpt", project=PROJECT)
        # The second name in a request is checked too.
        mixed = opening_message("projects/victim/profiles/gpt", run="projects/attacker/runs/one")
        with pytest.raises(PermissionDeniedError, match="not for 'attacker'"):
            client.recommend_once(mixed, MEASUREMENT)
        content = content_message()
        content.policy_name = "projects/attacker/policies/team"
        with pytest.raises(PermissionDeniedError, match="not for 'attacker'"):
            client.register_profile("gpt", content, project="victim")


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ((), "the call has no token"),
        ((("authorization", "Bearer "),), "the token is not valid here"),
        ((("authorization", "Bearer fslr_attacker_x_y"),), "the token is not valid"),
        ((("authorization", "Basic abc"),), "does not read 'Bearer {token}'"),
        ((("authorization", ""),), "does not read 'Bearer {token}'"),
    ],
)
def test_calls_without_a_valid_token_are_refused(
    filled: LocalServer, metadata: Any, what: str
) -> None:
    with AdvisorClient(filled.address) as client:
        for path in REQUESTS:
            assert code_of(client, path, metadata) == grpc.StatusCode.UNAUTHENTICATED, path
        call: Any = client.channel().unary_unary("/fslr.advisor.v1.StatusService/GetStatus")
        with pytest.raises(grpc.RpcError, match=what):
            call(b"", metadata=metadata)


def test_health_needs_no_token(filled: LocalServer) -> None:
    assert "SERVING" in Cli(filled.address, PROJECT).run("health", "--ready").output


def test_a_revoked_token_is_refused_in_open_streams_too(
    filled: LocalServer, tokens: Tokens
) -> None:
    created_token = tokens.create("trainer", name="night")
    with AdvisorClient(filled.address, token=created_token["token"]) as client:
        run = client.open_run(opening_message("projects/attacker/profiles/gpt"))
        run.recommend(MEASUREMENT)
        assert created_token["id"] in tokens.run("list")
        assert "revoked token" in tokens.run("revoke", created_token["id"])
        assert created_token["id"] not in tokens.run("list")
        started = time.monotonic()
        with pytest.raises(AuthenticationError, match="is not valid here"):
            while time.monotonic() < started + 10:
                run.recommend(MEASUREMENT)
        assert time.monotonic() - started < 5  # tokens are checked once per second
        with pytest.raises(AuthenticationError, match="set FSLR_TOKEN or FSLR_TOKEN_FILE"):
            run.recommend(MEASUREMENT)
    assert "has no token" in tokens.run("revoke", created_token["id"], ok=False)


def test_the_audit_log_records_the_token_and_the_actor_named_by_the_caller(
    filled: LocalServer, tokens: Tokens
) -> None:
    created_token = tokens.create("operator", name="ci")
    with AdvisorClient(filled.address, token=created_token["token"], actor="alice") as client:
        client.set_alias("gpt@2", "audited", project=PROJECT)
        client.actor = ""
        client.delete_alias("gpt", "audited", project=PROJECT)
        latest, before, *_, created = [
            event
            for event in client.list_audit_events(project=PROJECT)
            if created_token["id"] in event.actor + event.name
        ]
    assert latest.actor == f"ci (token {created_token['id']})"
    assert before.actor == f"ci (token {created_token['id']}) says alice"
    assert (created.action, created.detail) == ("create token", "operator ci")


def test_neither_redis_nor_the_log_contains_the_token(
    filled: LocalServer, tokens: Tokens, store: EmbeddedRedis
) -> None:
    import redis

    created_token = tokens.create("viewer", name="quiet")
    secret = created_token["token"].rsplit("_", 1)[1]
    with AdvisorClient(filled.address, token=created_token["token"]) as client:
        client.status()
        with pytest.raises(PermissionDeniedError, match="is a viewer") as refused:
            client.delete_profile("gpt@1", project=PROJECT)
        assert secret not in str(refused.value)
    with AdvisorClient(filled.address, token=created_token["token"][:-1] + "g") as client:
        with pytest.raises(AuthenticationError, match="token is not valid") as wrong:
            client.status()
        assert secret[:16] not in str(wrong.value)
    with redis.Redis.from_url(store.url) as admin:
        keys: Any = admin.keys("*")
        kept = b"".join(admin.dump(key) or b"" for key in keys)
        stored: Any = admin.hget("fslr:{attacker}:tokens", created_token["id"])
    assert secret.encode() not in kept
    assert set(json.loads(stored)) == {"name", "role", "sha256", "created", "expires"}
    assert secret not in filled.log()
    assert "Traceback" not in filled.log()


def test_the_streams_of_a_token_are_limited(filled: LocalServer, tokens: Tokens) -> None:
    with AdvisorClient(filled.address, token=tokens.create("trainer")["token"]) as client:
        runs = [client.open_run(opening_message("projects/attacker/profiles/gpt")) for _ in "123"]
        for run in runs[:2]:
            run.recommend(MEASUREMENT)
        with pytest.raises(TooBusyError, match=r"has 2 open streams here, .* --max-token-streams"):
            runs[2].recommend(MEASUREMENT)
        runs[0].close()
        eventually(lambda: _answers(runs[2]))
        for run in runs:
            run.close()


def _answers(run: Any) -> bool:
    try:
        run.recommend(MEASUREMENT)
    except TooBusyError:
        return False
    return True


def test_the_messages_of_a_token_are_limited_with_a_retry_delay(
    store: EmbeddedRedis, tokens: Tokens
) -> None:
    created_token = tokens.create("viewer")
    with (
        LocalServer(
            None,
            *("--redis-url", store.url, "--authenticate", "--max-token-messages-per-s", "2"),
        ) as service,
        AdvisorClient(service.address, token=created_token["token"]) as client,
    ):
        with pytest.raises(TooBusyError, match="sends more than 2 messages per second") as refused:
            for _ in range(10):
                client.status()
        assert refused.value.reason == "QUOTA_EXCEEDED"
        error = refused.value.__cause__
        assert isinstance(error, grpc.RpcError)
        details = rpc_status.from_call(error).details
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in details)
        delay_s = retry.retry_delay.ToTimedelta().total_seconds()
        assert 0 < delay_s <= 0.5
        time.sleep(delay_s)
        client.status()


def test_the_groups_of_a_layout_are_limited(filled: LocalServer, tokens: Tokens) -> None:
    names = [f"layers.{i}.weight" for i in range(51)]
    with AdvisorClient(filled.address, token=tokens.create("operator")["token"]) as client:
        content = content_message(names, steps=[0])
        with pytest.raises(
            MessageTooLargeError,
            match=r"51 groups and frozen names, but at most 50 .* --max-groups",
        ):
            client.register_profile("large", content, project=PROJECT)
        with pytest.raises(MessageTooLargeError, match="51 groups"):
            client.check_layout("gpt", content.layout, project=PROJECT)
        run = client.open_run(opening_message("projects/attacker/profiles/gpt", names))
        with pytest.raises(MessageTooLargeError, match="51 groups"):
            run.recommend(MEASUREMENT)


def test_revoking_a_token_ends_a_waiting_watch(filled: LocalServer, tokens: Tokens) -> None:
    created_token = tokens.create("viewer", name="watcher")
    request = WatchRunRequest(name=f"projects/{PROJECT}/runs/never-started")
    metadata = (("authorization", f"Bearer {created_token['token']}"),)
    with AdvisorClient(filled.address) as client:
        watch = RunServiceStub(client.channel()).WatchRun(request, metadata=metadata, timeout=10)
        time.sleep(0.7)  # longer than one check of the token
        assert watch.is_active()
        tokens.run("revoke", created_token["id"])
        with pytest.raises(grpc.RpcError, match="is not valid here"):
            next(watch)


def test_cached_tokens_stay_valid_while_redis_is_unavailable(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis") as redis_server,
        LocalServer(
            None,
            *("--redis-url", redis_server.url, "--authenticate", "--token-cache-s", "0"),
            *("--redis-timeout-s", "1"),
        ) as service,
    ):
        tokens = Tokens(redis_server.url, PROJECT)
        seen, unseen = (tokens.create(role) for role in ("operator", "trainer"))
        opening = opening_message("projects/attacker/profiles/gpt")
        with (
            AdvisorClient(service.address, token=seen["token"]) as client,
            AdvisorClient(service.address, token=unseen["token"]) as stranger,
        ):
            client.register_profile("gpt", content_message(), project=PROJECT)
            assert not client.recommend_once(opening, MEASUREMENT).stale
            redis_server.kill()
            assert client.recommend_once(opening, MEASUREMENT).stale
            with pytest.raises(Exception, match="the store does not answer") as refused:
                stranger.recommend_once(opening, MEASUREMENT)
            assert getattr(refused.value, "reason", "") == "STORE_UNAVAILABLE"
            redis_server.start()
            eventually(lambda: not client.recommend_once(opening, MEASUREMENT).stale)
            stranger.recommend_once(opening, MEASUREMENT)


def test_certificates_have_the_roles_from_the_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    roles = tmp_path / "roles.yaml"
    roles.write_text("roles: [{certificate: job.team.example, project: nlp, role: operator}]\n")
    named, nameless = (
        CertificateFiles(authority.ca(), *authority.issue(name, identity))
        for name, identity in (("job", "job.team.example"), ("other", "other.team.example"))
    )
    with LocalServer(
        None,
        *("--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key)),
        *("--tls-client-ca", str(authority.ca()), "--tls-client-roles", str(roles)),
    ) as service:
        address = f"127.0.0.1:{service.address.rsplit(':', 1)[1]}"
        with AdvisorClient(address, tls=named, actor="bob") as client:
            client.register_profile("gpt", content_message(), project="nlp")
            (event,) = client.list_audit_events(project="nlp")
            assert event.actor == "job.team.example (certificate) says bob"
            with pytest.raises(PermissionDeniedError, match="is for project 'nlp'"):
                client.get_profile("gpt", project="vision")
            text = roles.read_text()
            session = client.open_run(opening_message("projects/nlp/profiles/gpt"))
            session.recommend(pb.Measurement(unit_rates=[1.0] * 4))
            roles.write_text(text.replace("nlp", "vision"))
            with pytest.raises(PermissionDeniedError, match="'vision' now, and this stream is of "):
                session.recommend(pb.Measurement(step=100, unit_rates=[1.0] * 4))
            session.close()
            roles.write_text(text.replace("operator", "viewer"))
            with pytest.raises(PermissionDeniedError, match="is a viewer"):
                client.delete_profile("gpt@1", project="nlp")
        with (
            AdvisorClient(address, tls=nameless) as client,
            pytest.raises(AuthenticationError, match=r"names \(other.*\) have no role here"),
        ):
            client.status()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines, and calls are not encrypted"),
        (["--host", "0.0.0.0", "--authenticate"], "calls are not encrypted"),
        (["--host", "0.0.0.0", "{tls}", "--no-authenticate"], "callers are not authenticated"),
        (["{tls}", "--tls-client-roles", "x"], "tls_client_roles needs tls_client_ca"),
        (["{mtls}", "--tls-client-roles", "x"], "no effect without authenticate"),
        (["{mtls}", "--authenticate", "--tls-client-roles", "/no"], "cannot be read: No such"),
    ],
)
def test_a_service_without_authentication_refuses_to_listen_on_a_network(
    tmp_path: Path, arguments: list[str], match: str
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    tls = ["--tls-cert", str(cert), "--tls-key", str(key)]
    spelled = {"{tls}": tls, "{mtls}": [*tls, "--tls-client-ca", str(authority.ca())]}
    given = [part for argument in arguments for part in spelled.get(argument, [argument])]
    with pytest.raises(LocalServerError, match=match), LocalServer(None, *given):
        pass


def test_tokens_can_be_created_before_during_and_after_a_service(tmp_path: Path) -> None:
    cli = Cli("127.0.0.1:1", PROJECT)
    # The path is too long for a socket, so the socket is elsewhere; commands must find it.
    data = tmp_path / ("x" * 90)
    where = ("--data-dir", str(data))
    before = cli.json("token", "create", "before", "--role", "viewer", *where)
    with LocalServer(data, "--authenticate") as service:
        beside = cli.json("token", "create", "beside", "--role", "viewer", *where)
        for created_token in (before, beside):
            with AdvisorClient(service.address, token=created_token["token"]) as client:
                assert client.status().caller.name == created_token["name"]
    listed = cli.json("token", "list", *where)
    assert [record["name"] for record in listed] == ["before", "beside"]
