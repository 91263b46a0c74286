"""Goes to a deployment the way a training job would, and collects the findings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from advisor.doctor import rules
from advisor.doctor.findings import Finding, Level
from advisor.doctor.network import Endpoint, UnreachableError, connect, endpoints, handshake
from advisor.server.readiness import LIVENESS, READINESS
from fslr import (
    AdvisorClient,
    AuthenticationError,
    CertificateError,
    CertificateFiles,
    ServiceError,
    TokenError,
)
from fslr.advisor.v1 import status_service_pb2, status_service_pb2_grpc
from fslr.client.tokens import TokenSource

_MOST_CALLS = 32  # to see each replica, of which the client takes one after the other


def examine(address: str, *, project: str | None, timeout_s: float) -> list[Finding]:
    """Look at a deployment.

    Where one thing keeps us from looking at the next, the findings end.

    Args:
        address: As clients name it.
        project: Where the caller wants to work; None: wherever its token leads.
        timeout_s: Longest wait for each connection and each answer, in seconds.
    """
    # Replicas are set up alike: what several show is said once.
    return list(dict.fromkeys(_examine(address, project, timeout_s)))


def _examine(address: str, project: str | None, timeout_s: float) -> Iterator[Finding]:
    try:
        files = CertificateFiles.from_environment()
        token = TokenSource.from_environment()
        client = AdvisorClient(address, deadline_s=timeout_s)
    except CertificateError as error:
        yield Finding("tls", Level.PROBLEM, str(error), "correct FSLR_TLS_CA, _CERT and _KEY")
        return
    except TokenError as error:
        yield Finding("token", Level.PROBLEM, str(error))
        return
    with client:
        reachable: list[Endpoint] = []
        for finding in _network(address, files, reachable, timeout_s):
            yield finding
            if finding.level is Level.PROBLEM:
                return
        health = list(_health(client, timeout_s))
        yield from health
        if health[0].level is not Level.PROBLEM:
            yield from _service(
                client,
                calls=min(_MOST_CALLS, 2 * len(reachable) or 1),
                project=project,
                files=files,
                with_token=token.given,
            )


def _network(
    address: str, files: CertificateFiles | None, reachable: list[Endpoint], timeout_s: float
) -> Iterator[Finding]:
    """Judge the way to the service; put the addresses that accept connections into a list."""
    try:
        found = endpoints(address)
    except UnreachableError as error:
        yield Finding("address", Level.PROBLEM, str(error), "correct --address: host:port")
        return
    refused: list[str] = []
    for endpoint in found:
        try:
            connect(endpoint, timeout_s)
        except UnreachableError as error:
            refused.append(str(error))
        else:
            reachable.append(endpoint)
    yield from _reached(address, reachable, refused)
    now = datetime.now(UTC)
    for endpoint in reachable:
        seen = handshake(endpoint, files, timeout_s)
        yield from rules.tls(seen, endpoint.host, wanted=files is not None, now=now)


def _reached(address: str, reachable: list[Endpoint], refused: list[str]) -> Iterator[Finding]:
    if not refused:
        yield Finding("address", Level.OK, f"{address} leads to {_count(reachable)}")
    elif not reachable:
        yield Finding(
            "address",
            Level.PROBLEM,
            "; ".join(refused),
            "start the service there, and let this machine through to it",
        )
    elif {endpoint.host for endpoint in reachable} == {"localhost"}:
        # The name stands for two addresses, and a service listens on the one that it is told.
        yield Finding("address", Level.OK, f"{address} leads to {_count(reachable)}")
    else:
        yield Finding(
            "address",
            Level.WARNING,
            f"{address} leads to {_count(reachable)}, and clients go around what does not answer: "
            + "; ".join(refused),
            "take those out of the name, or start the service there",
        )


def _count(reachable: list[Endpoint]) -> str:
    if not reachable:
        return "a Unix socket"
    return "one address" if len(reachable) == 1 else f"{len(reachable)} addresses"


def _health(client: AdvisorClient, timeout_s: float) -> Iterator[Finding]:
    stub = health_pb2_grpc.HealthStub(client.channel())
    serving = health_pb2.HealthCheckResponse.SERVING
    try:
        stub.Check(health_pb2.HealthCheckRequest(service=LIVENESS), timeout=timeout_s)
        ready = stub.Check(health_pb2.HealthCheckRequest(service=READINESS), timeout=timeout_s)
    except grpc.RpcError as error:
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        yield Finding(
            "service",
            Level.PROBLEM,
            f"what listens there does not answer as an advisor ({details})",
            "see that the port is the advisor's, and that what lies between speaks HTTP/2",
        )
        return
    if ready.status == serving:
        yield Finding("service", Level.OK, "it answers, and is ready")
    else:
        yield Finding(
            "service", Level.WARNING, "it answers, and is not ready: it cannot use Redis now"
        )


def _service(
    client: AdvisorClient,
    *,
    calls: int,
    project: str | None,
    files: CertificateFiles | None,
    with_token: bool,
) -> Iterator[Finding]:
    """Judge what the service says of itself, asked as often as it takes to meet each replica."""
    answers: list[rules.Answer] = []
    try:
        for _ in range(calls):
            sent, begun = datetime.now(UTC), time.perf_counter()
            status = client.status()
            answers.append(rules.Answer(status, sent, time.perf_counter() - begun, with_token))
    except AuthenticationError as error:
        yield Finding(
            "token",
            Level.PROBLEM,
            str(error),
            "let an operator make one with `advisor token create`, and set FSLR_TOKEN or "
            "FSLR_TOKEN_FILE",
        )
        return
    except ServiceError as error:
        yield Finding("service", Level.PROBLEM, str(error), "look at the service's log")
        return
    now = datetime.now(UTC)
    for answer in answers:
        yield from rules.encryption(answer.status, through_tls=files is not None)
        yield from rules.caller(answer, project=project, now=now)
        yield from rules.store(answer.status.store)
        yield from rules.clocks(answer)
    if with_token and answers[0].status.authenticates:
        yield _without_token(client, shows=files is not None and files.cert is not None)
    yield from rules.versions({a.status.version for a in answers}, version("fslr-advisor"))


def _without_token(client: AdvisorClient, *, shows: bool) -> Finding:
    """Call without a token: a service that asks its callers who they are must refuse that.

    Args:
        client: The client.
        shows: Whether it shows a certificate, which may have a role of its own.
    """
    stub = status_service_pb2_grpc.StatusServiceStub(client.channel())
    try:
        stub.GetStatus(status_service_pb2.GetStatusRequest(), timeout=client.deadline_s)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return Finding("token", Level.OK, "a call without a token is refused")
        return Finding("token", Level.UNKNOWN, "whether a call without a token is refused")
    if shows:
        return Finding("token", Level.OK, "the certificate shown lets calls in without a token too")
    return Finding(
        "token",
        Level.PROBLEM,
        "a call without a token is let in, although the service says that it asks for one",
        "look at what lies between: something there lends its own token or certificate to callers",
    )
